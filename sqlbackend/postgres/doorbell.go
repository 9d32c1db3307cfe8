package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/holdfast-sessions/holdfast/migrations"
)

const (
	// listenQuiet is how long a doorbell may be silent before the connection is asked
	// whether it is still there. A firewall that forgot it tells nobody.
	listenQuiet = 30 * time.Second

	// listenAnswer bounds how long connecting, asking and closing may take.
	listenAnswer = 5 * time.Second
)

func (b *Backend) nameChannel(cfg *Config) error {
	names, err := (&migrations.Config{TablePrefix: cfg.TablePrefix, Schema: cfg.Schema}).Names(migrations.Postgres)
	if err != nil {
		return err
	}
	b.channel = "SELECT " + strings.NewReplacer("{prefix}", names.Prefix, "{events}", names.Events).Replace(snippets["channel"])
	return nil
}

// Listen implements [sessionstore.Doorbell] with LISTEN, on a connection of its own
// beside the pool, made with Config.Doorbell or else the pool's configuration. It
// rings once as soon as it listens, for what came before.
//
// It always returns an error, which is ctx's own if ctx ended. With
// Config.DisableDoorbell it returns one that wraps [errors.ErrUnsupported], at once.
// Through a pooler in transaction mode it listens and hears nothing.
func (b *Backend) Listen(ctx context.Context, ring func()) error {
	if b.channel == "" {
		return fmt.Errorf("listen for events: Config.DisableDoorbell is set: %w", errors.ErrUnsupported)
	}
	err := b.listen(ctx, ring)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("listen for events: %w", err)
}

func (b *Backend) listen(ctx context.Context, ring func()) error {
	conn, err := b.startListening(ctx)
	if conn != nil {
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), listenAnswer)
			defer cancel()
			conn.Close(ctx)
		}()
	}
	if err != nil {
		return err
	}
	for {
		ring()
		if err := awaitRing(ctx, conn); err != nil {
			return err
		}
	}
}

// startListening may return a connection beside an error.
func (b *Backend) startListening(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, listenAnswer)
	defer cancel()
	if b.direct != nil {
		conn, err := pgx.ConnectConfig(ctx, b.direct.Copy())
		if err != nil {
			return nil, err
		}
		return conn, b.hear(ctx, conn)
	}
	cfg := b.pool.Config() // a copy
	if cfg.BeforeConnect != nil {
		if err := cfg.BeforeConnect(ctx, cfg.ConnConfig); err != nil {
			return nil, err
		}
	}
	conn, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
	if err != nil {
		return nil, err
	}
	if cfg.AfterConnect != nil { // which may set the search_path
		if err := cfg.AfterConnect(ctx, conn); err != nil {
			return conn, err
		}
	}
	return conn, b.hear(ctx, conn)
}

func (b *Backend) hear(ctx context.Context, conn *pgx.Conn) error {
	var channel string
	if err := conn.QueryRow(ctx, b.channel).Scan(&channel); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize())
	return err
}

// awaitRing returns nil after a notification.
func awaitRing(ctx context.Context, conn *pgx.Conn) error {
	for {
		quiet, cancel := context.WithTimeout(ctx, listenQuiet)
		_, err := conn.WaitForNotification(quiet)
		silent := err != nil && ctx.Err() == nil && quiet.Err() != nil
		cancel()
		if !silent {
			return err
		}
		answer, cancel := context.WithTimeout(ctx, listenAnswer)
		err = conn.Ping(answer)
		cancel()
		if err != nil {
			return err
		}
	}
}
