package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// handWritten is what one writes without a library, and with care: the session is
// JSON in a row with a version, a save is one conditional UPDATE, repeated on the
// newer content if another request came first. The process keeps what it has read
// and written in a map that nothing bounds, so it never reads a row twice; it is
// right on one node only.
type handWritten struct {
	rows handRows

	mu     sync.RWMutex // guards copies
	copies map[uuid.UUID]handCopy
}

type handCopy struct {
	version int64
	Content
}

// handRows are the statements.
type handRows interface {
	insert(ctx context.Context, id uuid.UUID, data []byte) error
	load(ctx context.Context, id uuid.UUID) (version int64, data []byte, err error)
	// update reports whether the row still had the version.
	update(ctx context.Context, id uuid.UUID, version int64, data []byte) (bool, error)
}

func (d *database) handWritten(ctx context.Context) (http.Handler, error) {
	h := &handWritten{copies: make(map[uuid.UUID]handCopy)}
	if d.kind == onPostgres {
		pool, err := d.openPool(ctx)
		if err != nil {
			return nil, err
		}
		h.rows = handPostgres{pool}
		return h, nil
	}
	rows, err := newHandMySQL(ctx, d.openSQL())
	h.rows = rows
	return h, err
}

func (h *handWritten) find(ctx context.Context, id uuid.UUID) (handCopy, error) {
	h.mu.RLock()
	c, ok := h.copies[id]
	h.mu.RUnlock()
	if ok {
		return c, nil
	}
	return h.reload(ctx, id)
}

func (h *handWritten) reload(ctx context.Context, id uuid.UUID) (c handCopy, err error) {
	version, data, err := h.rows.load(ctx, id)
	if err != nil {
		return c, err
	}
	c.version = version
	if err := json.Unmarshal(data, &c.Content); err != nil {
		return c, err
	}
	h.keep(id, c)
	return c, nil
}

func (h *handWritten) keep(id uuid.UUID, c handCopy) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.copies[id].version < c.version {
		h.copies[id] = c
	}
}

type handVisit struct {
	h   *handWritten
	ctx context.Context
	id  uuid.UUID
	handCopy
	began, changed bool
}

func (v *handVisit) start(c Content) { v.Content, v.began = c, true }
func (v *handVisit) user() string    { return v.User }
func (v *handVisit) count() int      { return v.Count }
func (v *handVisit) cart() Cart      { return v.Cart }
func (v *handVisit) increment()      { v.Count++; v.changed = true }

func (v *handVisit) store() error {
	if !v.began && !v.changed {
		return nil
	}
	for {
		data, err := json.Marshal(v.Content)
		if err != nil {
			return err
		}
		if v.began {
			v.version = 1
			v.h.keep(v.id, v.handCopy)
			return v.h.rows.insert(v.ctx, v.id, data)
		}
		ok, err := v.h.rows.update(v.ctx, v.id, v.version, data)
		if err != nil {
			return err
		}
		if ok {
			v.version++
			v.h.keep(v.id, v.handCopy)
			return nil
		}
		if v.handCopy, err = v.h.reload(v.ctx, v.id); err != nil {
			return err
		}
		v.Count++
	}
}

func (h *handWritten) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &handVisit{h: h, ctx: r.Context()}
	if cookie, err := r.Cookie("id"); err == nil {
		if v.id, err = uuid.Parse(cookie.Value); err == nil {
			v.handCopy, err = h.find(r.Context(), v.id)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	} else {
		v.id = uuid.Must(uuid.NewV7())
		http.SetCookie(w, &http.Cookie{Name: "id", Value: v.id.String(), Path: "/", HttpOnly: true})
	}
	shop(w, r.URL.Path, v)
}

type handPostgres struct{ pool *pgxpool.Pool }

func (p handPostgres) insert(ctx context.Context, id uuid.UUID, data []byte) error {
	_, err := p.pool.Exec(ctx, `INSERT INTO hand_written VALUES ($1, 1, $2, now() + interval '30 minutes')`, [16]byte(id), data)
	return err
}

func (p handPostgres) load(ctx context.Context, id uuid.UUID) (version int64, data []byte, err error) {
	err = p.pool.QueryRow(ctx, `SELECT version, data FROM hand_written WHERE id = $1 AND expires_at > now()`, [16]byte(id)).Scan(&version, &data)
	if errors.Is(err, pgx.ErrNoRows) {
		err = fmt.Errorf("no session %s", id)
	}
	return version, data, err
}

func (p handPostgres) update(ctx context.Context, id uuid.UUID, version int64, data []byte) (bool, error) {
	tag, err := p.pool.Exec(ctx, `
UPDATE hand_written SET version = version + 1, data = $3, expires_at = now() + interval '30 minutes'
WHERE id = $1 AND version = $2 AND expires_at > now()`, [16]byte(id), version, data)
	return tag.RowsAffected() == 1, err
}

type handMySQL struct{ inserting, loading, updating *sql.Stmt }

func newHandMySQL(ctx context.Context, db *sql.DB) (*handMySQL, error) {
	m := &handMySQL{}
	for to, text := range map[**sql.Stmt]string{
		&m.inserting: `INSERT INTO hand_written VALUES (?, 1, ?, UTC_TIMESTAMP() + INTERVAL 30 MINUTE)`,
		&m.loading:   `SELECT version, data FROM hand_written WHERE id = ? AND expires_at > UTC_TIMESTAMP()`,
		&m.updating: `UPDATE hand_written SET version = version + 1, data = ?, expires_at = UTC_TIMESTAMP() + INTERVAL 30 MINUTE
WHERE id = ? AND version = ? AND expires_at > UTC_TIMESTAMP()`,
	} {
		var err error
		if *to, err = db.PrepareContext(ctx, text); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *handMySQL) insert(ctx context.Context, id uuid.UUID, data []byte) error {
	_, err := m.inserting.ExecContext(ctx, id[:], data)
	return err
}

func (m *handMySQL) load(ctx context.Context, id uuid.UUID) (version int64, data []byte, err error) {
	err = m.loading.QueryRowContext(ctx, id[:]).Scan(&version, &data)
	return version, data, err
}

func (m *handMySQL) update(ctx context.Context, id uuid.UUID, version int64, data []byte) (bool, error) {
	r, err := m.updating.ExecContext(ctx, data, id[:], version)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n == 1, err
}
