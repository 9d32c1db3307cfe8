package dbtest

import (
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// Record returns a session that was not stored yet, with a new ID and secret. It ends
// half an hour after its last use, and twelve hours after its creation.
func Record(app, principal string, data []byte) *sessionstore.Record {
	id := sessionstore.ID(uuid.Must(uuid.NewV7()))
	return &sessionstore.Record{
		Info: sessionstore.Info{
			Key: sessionstore.Key{ID: id, App: app}, Principal: principal,
			Idle: 30 * time.Minute, Lifetime: 12 * time.Hour,
		},
		SecretHash: sessionstore.NewToken(id, "").SecretHash(),
		Data:       data,
	}
}
