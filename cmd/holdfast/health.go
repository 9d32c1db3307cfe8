package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func newHealthCommand() *cobra.Command {
	var address string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a node how it is",
		Long: "Asks a node how it is and exits with 0 if it answers with status 200, with 1 if\n" +
			"not. For the health check of a container that holds nothing else.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, address, nil)
			if err != nil || req.URL.Host == "" {
				return usageError{errors.New("--url: want one such as " + defaultHealthURL)}
			}
			if timeout <= 0 {
				return usageError{fmt.Errorf("--timeout %s: want more than 0", timeout)}
			}
			client := &http.Client{Timeout: timeout}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
			if err != nil {
				return err
			}
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%s answers %s: %s", address, resp.Status, bytes.TrimSpace(body))
			}
			_, err = cmd.OutOrStdout().Write(body)
			return err
		},
	}
	cmd.Flags().StringVar(&address, "url", defaultHealthURL, "`URL` to ask")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "`duration` for which to wait")
	return cmd
}

const defaultHealthURL = "http://127.0.0.1:8080/healthz"
