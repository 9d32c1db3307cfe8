package sqlbackend

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// columns make up a record but for its data, in the order of scanRecord.
const columns = "s.id, s.app, s.secret_hash, s.version, s.principal, s.node, " +
	"s.created_at, s.accessed_at, s.expires_at, s.idle, s.lifetime"

const (
	// unlimited stands for a duration without limit, so that the earlier of two
	// ends is the smaller of two sums everywhere. It is 73,000 years, far above
	// what a time.Duration holds, and far enough below 2^63 to be added to.
	unlimited = int64(1) << 61

	// lastExpiry, the end of the year 9999, is the last expiry that is a time.
	lastExpiry = 253402300799999999
)

// scanRecord reads {columns}, the clock, the data, and what else the row has.
func scanRecord(scan Scan, more ...any) (*sessionstore.Record, error) {
	var data []byte
	r, err := scanInfo(scan, append([]any{&data}, more...)...)
	if err == nil {
		r.Data = data
	}
	return r, err
}

// scanInfo reads {columns}, the clock, and what else the row has.
func scanInfo(scan Scan, more ...any) (*sessionstore.Record, error) {
	var (
		r                                           sessionstore.Record
		id                                          storedID
		hash                                        []byte
		created, accessed, expires, idle, life, now int64
	)
	dest := []any{&id, &r.Key.App, &hash, &r.Version, &r.Principal, &r.Node,
		&created, &accessed, &expires, &idle, &life, &now}
	if err := scan(append(dest, more...)...); err != nil {
		return nil, err
	}
	if len(hash) != len(r.SecretHash) {
		return nil, fmt.Errorf("session %s: stored secret hash has %d bytes, want %d", sessionstore.ID(id), len(hash), len(r.SecretHash))
	}
	copy(r.SecretHash[:], hash)
	r.Key.ID = sessionstore.ID(id)
	r.CreatedAt, r.AccessedAt, r.Now = fromMicros(created), fromMicros(accessed), fromMicros(now)
	if expires <= lastExpiry {
		r.ExpiresAt = fromMicros(expires)
	}
	r.Idle, r.Lifetime = toDuration(idle), toDuration(life)
	return &r, nil
}

// recordArgs are the parameters that store rec.
func (b *Backend) recordArgs(rec *sessionstore.Record) (args, error) {
	idle, err := fromDuration("Idle", rec.Idle)
	if err != nil {
		return nil, err
	}
	life, err := fromDuration("Lifetime", rec.Lifetime)
	if err != nil {
		return nil, err
	}
	data := rec.Data
	if data == nil {
		data = []byte{} // nil would be NULL
	}
	return args{
		"id": b.dialect.ID(rec.Key.ID), "app": b.dialect.Text(rec.Key.App),
		"hash": rec.SecretHash[:], "principal": b.dialect.Text(rec.Principal), "node": b.dialect.Text(rec.Node),
		"idle": idle, "lifetime": life, "data": data, "slack": slotSlack.Microseconds(),
	}, nil
}

func fromMicros(us int64) time.Time { return time.UnixMicro(us).UTC() }

// fromDuration returns the microseconds to store for d, where 0 is without limit.
// It rounds up, because 0 would be no limit at all.
func fromDuration(field string, d time.Duration) (int64, error) {
	switch {
	case d < 0:
		return 0, fmt.Errorf("sqlbackend: %s %s is negative", field, d)
	case d == 0:
		return unlimited, nil
	}
	us := d.Microseconds()
	if d%time.Microsecond != 0 {
		us++
	}
	return us, nil
}

func toDuration(us int64) time.Duration {
	if us >= unlimited {
		return 0
	}
	return time.Duration(us) * time.Microsecond
}

// A storedID scans an ID from its 16 bytes or its canonical form.
type storedID sessionstore.ID

// Scan implements [database/sql.Scanner].
func (id *storedID) Scan(src any) error {
	switch src := src.(type) {
	case []byte:
		if len(src) == len(id) {
			copy(id[:], src)
			return nil
		}
		return fmt.Errorf("stored session ID has %d bytes", len(src))
	case string:
		u, err := uuid.Parse(src)
		*id = storedID(u)
		return err
	}
	return fmt.Errorf("stored session ID is a %T", src)
}

// A listedRow is a row that a statement's list names.
type listedRow struct {
	key     sessionstore.Key
	ago     time.Duration
	version sessionstore.Version
	proof   sessionstore.SecretHash
}

// listRows are the parameters that list rows.
func (b *Backend) listRows(rows []listedRow) args {
	if b.dialect.Arrays {
		ids, apps := make([]string, len(rows)), make([]string, len(rows))
		agos, versions := make([]int64, len(rows)), make([]int64, len(rows))
		for i, r := range rows {
			ids[i], apps[i], agos[i], versions[i] = r.key.ID.String(), r.key.App, r.ago.Microseconds(), int64(r.version)
		}
		return args{"ids": ids, "apps": apps, "agos": agos, "versions": versions}
	}
	list := append(make([]byte, 0, 192*len(rows)+2), '[')
	for i, r := range rows {
		if i > 0 {
			list = append(list, ',')
		}
		list = fmt.Appendf(list, `{"id":"%X","app":"%X","ago":%d,"version":%d,"proof":"%X"}`,
			r.key.ID[:], r.key.App, r.ago.Microseconds(), r.version, r.proof[:])
	}
	return args{"rows": jsonList(append(list, ']'))}
}

// listRecords are the parameters that list rows which a statement only has to find.
func (b *Backend) listRecords(records []*sessionstore.Record) args {
	if b.dialect.Arrays {
		rows := make([]listedRow, len(records))
		for i, r := range records {
			rows[i].key = r.Key
		}
		return b.listRows(rows)
	}
	list := append(make([]byte, 0, 64*len(records)+2), '[')
	for i, r := range records {
		if i > 0 {
			list = append(list, ',')
		}
		list = fmt.Appendf(list, `{"id":"%X","app":"%X"}`, r.Key.ID[:], r.Key.App)
	}
	return args{"rows": jsonList(append(list, ']'))}
}

func (b *Backend) listIDs(ids ...sessionstore.ID) any {
	list := make([]string, len(ids))
	for i, id := range ids {
		if b.dialect.Arrays {
			list[i] = id.String()
		} else {
			list[i] = toHex(id[:])
		}
	}
	if b.dialect.Arrays {
		return list
	}
	return toJSON(list)
}

func (b *Backend) listTexts(texts []string) any {
	if b.dialect.Arrays {
		return append([]string{}, texts...) // nil would be NULL
	}
	list := make([]string, len(texts))
	for i, s := range texts {
		list[i] = toHex([]byte(s))
	}
	return toJSON(list)
}

func toJSON(list []string) jsonList {
	text, err := json.Marshal(list)
	if err != nil {
		panic(err) // strings only
	}
	return jsonList(text)
}

// toHex uses capital letters, as the databases' HEX functions do.
func toHex(b []byte) string { return fmt.Sprintf("%X", b) }
