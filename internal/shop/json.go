package shop

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// maxBodyBytes bounds a JSON body: more than a whole session may hold, with room
// for white space, which is not stored.
const maxBodyBytes = 2 * sessionstore.DefaultMaxDataBytes

// readJSON returns the request's body, which must be exactly one JSON value.
func readJSON(r *http.Request) (json.RawMessage, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBodyBytes+1))
	switch {
	case err != nil:
		return nil, statusError{http.StatusBadRequest, "the body ended early"}
	case len(body) > maxBodyBytes:
		return nil, statusError{http.StatusRequestEntityTooLarge, "the body is larger than any session may be"}
	case len(bytes.TrimSpace(body)) == 0:
		return nil, statusError{http.StatusBadRequest, "the body is empty, want a JSON value"}
	case !utf8.Valid(body):
		return nil, statusError{http.StatusBadRequest, "the body is not JSON: it is not valid UTF-8"}
	}
	var value json.RawMessage
	if err := json.Unmarshal(body, &value); err != nil {
		message := "the body is not JSON: " + err.Error()
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			message = "the body is not JSON: byte " + strconv.FormatInt(syntax.Offset, 10) + ": " + syntax.Error()
		}
		return nil, statusError{http.StatusBadRequest, message}
	}
	return value, nil
}

func writeJSON(w http.ResponseWriter, status int, answer any) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(answer); err != nil { // a value that was valid when it was stored
		status = http.StatusInternalServerError
		buf.Reset()
		buf.WriteString(`{"error":"the answer cannot be encoded"}` + "\n")
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(buf.Bytes())
}

func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, map[string]any{"error": message})
}
