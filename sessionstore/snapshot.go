package sessionstore

import (
	"log/slog"
	"math"
	"time"
)

// never is a deadline that does not pass.
const never = time.Duration(math.MaxInt64)

const (
	// snapshotOverhead is what a cached snapshot takes beside its strings and its
	// attributes: itself (208 bytes), its activity (64), and the cache's node (64) with
	// its share of the cache's tables.
	snapshotOverhead = 208 + 64 + 64 + 40

	// attributeOverhead is what an attribute takes beside its name and data in the
	// envelope: itself (48 bytes) and the pointer to it.
	attributeOverhead = 56

	// decodedOverhead is what a decoded value takes beside its content.
	decodedOverhead = 32
)

// micros is a time by the database's clock, as the database stores it: microseconds
// since 1970. A time.Time takes three times as much.
type micros int64

func microsOf(t time.Time) micros { return micros(t.UnixMicro()) }

func (t micros) time() time.Time { return time.UnixMicro(int64(t)).UTC() }

func (t micros) sub(u micros) time.Duration { return time.Duration(t-u) * time.Microsecond }

// A compactInfo is an Info as snapshots keep it: without what the manager knows
// anyway and what follows from the rest.
type compactInfo struct {
	ID                    ID
	Version               Version
	Principal, Node       string
	CreatedAt, AccessedAt micros
	Idle, Lifetime        time.Duration
}

func compact(i Info) compactInfo {
	return compactInfo{
		ID: i.Key.ID, Version: i.Version, Principal: i.Principal, Node: i.Node,
		CreatedAt: microsOf(i.CreatedAt), AccessedAt: microsOf(i.AccessedAt), Idle: i.Idle, Lifetime: i.Lifetime,
	}
}

// of returns the whole Info of a session of app.
func (c *compactInfo) of(app string) Info {
	i := Info{
		Key: Key{c.ID, app}, Version: c.Version, Principal: c.Principal, Node: c.Node,
		CreatedAt: c.CreatedAt.time(), AccessedAt: c.AccessedAt.time(), Idle: c.Idle, Lifetime: c.Lifetime,
	}
	i.setExpiresAt()
	return i
}

// A snapshot is one version of a session as this node knows it. It is immutable
// and shared by all requests of the node.
//
// Its times on this node are durations since the manager's epoch, measured by
// the monotonic clock; they meet the database's clock only in anchor and now (P12).
type snapshot struct {
	info  compactInfo
	hash  SecretHash
	attrs attributes
	// own says that this node stored this version itself, so that no other node
	// has a copy of it that was made by a write.
	own bool
	// doubtful says that a write was based on it of which it is unknown whether it took
	// place. Such a copy answers only where the database cannot be asked.
	doubtful bool
	// complete is the snapshot of which this is a view, nil if it is none. A view lacks
	// what others have stored in the same version, so no write may be based on it.
	complete *snapshot
	// unreadable is the stored data if it is no envelope this version can read. Then
	// there are no attributes and none can be changed, but everything else can (P13).
	unreadable string
	// anchor is when the database was asked, and now what its clock said then.
	anchor time.Duration
	now    micros
	// deadline is when the session expires unless it is used; a touch that was
	// written back moves it, see activity.
	deadline time.Duration
	activity *activity
}

// attributes returns the attributes of a snapshot that may be nil.
func (sn *snapshot) attributes() attributes {
	if sn == nil {
		return nil
	}
	return sn.attrs
}

// viewing returns a view of the snapshot with other attributes.
func (sn *snapshot) viewing(attrs attributes) *snapshot {
	view := *sn
	view.attrs, view.complete = attrs, sn.whole()
	return &view
}

// whole returns what is stored in the snapshot's version.
func (sn *snapshot) whole() *snapshot {
	if sn.complete != nil {
		return sn.complete
	}
	return sn
}

// databaseTime estimates the database's clock at a time on this node.
func (sn *snapshot) databaseTime(at time.Duration) time.Time {
	return sn.now.time().Add(at - sn.anchor).Truncate(time.Microsecond)
}

// expired reports whether the session's deadline has passed by this node's
// knowledge. It may be wrong in one direction only: the database is asked then.
func (sn *snapshot) expired(at time.Duration) bool {
	deadline := sn.deadline
	if sn.info.Idle > 0 {
		deadline = max(deadline, min(time.Duration(sn.activity.written.Load())+sn.info.Idle, sn.end()))
	}
	return at >= deadline
}

// follows reports whether sn is of a later version than other, or of a record that was
// begun anew since.
func (sn *snapshot) follows(other *snapshot) bool {
	if sn.info.CreatedAt != other.info.CreatedAt {
		return sn.info.CreatedAt > other.info.CreatedAt
	}
	return sn.info.Version > other.info.Version
}

// end is when the session's lifetime ends. Being counted from before the question
// was asked, it never comes late, nor does the deadline.
func (sn *snapshot) end() time.Duration {
	if sn.info.Lifetime <= 0 {
		return never
	}
	return sn.anchor + sn.info.CreatedAt.sub(sn.now) + sn.info.Lifetime
}

func (sn *snapshot) setDeadline() {
	sn.deadline = sn.end()
	if sn.info.Idle > 0 {
		sn.deadline = min(sn.deadline, sn.anchor+sn.info.AccessedAt.sub(sn.now)+sn.info.Idle)
	}
}

// setExpiresAt computes what the database computes from the other times.
func (i *Info) setExpiresAt() {
	i.ExpiresAt = time.Time{}
	if i.Lifetime > 0 {
		i.ExpiresAt = i.CreatedAt.Add(i.Lifetime)
	}
	if i.Idle > 0 {
		if t := i.AccessedAt.Add(i.Idle); i.ExpiresAt.IsZero() || t.Before(i.ExpiresAt) {
			i.ExpiresAt = t
		}
	}
}

// weight is the snapshot's memory, an estimate in bytes: what it refers to, and a
// sixteenth of the data more, because memory is given out in steps.
func (sn *snapshot) weight() int {
	data := sn.attrs.encodedSize() + len(sn.unreadable)
	n := snapshotOverhead + len(sn.info.Principal) + len(sn.info.Node) + data + data/16
	for _, a := range sn.attrs {
		n += attributeOverhead
		if len(a.data) <= decodedBytes {
			n += decodedOverhead + len(a.data) // it may be decoded any time
		}
	}
	return n
}

// loaded makes a snapshot of a record the database returned, asked at anchor.
// Where the record has no data because it was not modified, known's is used.
func (m *Manager) loaded(rec *Record, anchor time.Duration, known *snapshot) *snapshot {
	sn := &snapshot{info: compact(rec.Info), hash: rec.SecretHash, anchor: anchor, now: microsOf(rec.Now)}
	if known != nil {
		sn.attrs, sn.unreadable, sn.own = known.attrs, known.unreadable, known.own
	} else if attrs, err := decodeEnvelope(rec.Data); err != nil {
		sn.unreadable = string(rec.Data)
		m.stats.decodeErrors.Add(1)
		m.cfg.Logger.Error("session data are unreadable and kept, its attributes count as not set",
			slog.String("app", m.app), slog.String("session", rec.Key.ID.String()), slog.Any("error", err))
	} else {
		sn.attrs = attrs
	}
	sn.activity = m.activities.of(rec.Key.ID, known)
	sn.setDeadline()
	return sn
}

// written makes the snapshot that a successful write begun at anchor left behind.
// now is the database's clock then, as far as known.
func (m *Manager) written(rec *Record, attrs attributes, version Version, anchor time.Duration, now time.Time, before *snapshot) *snapshot {
	sn := &snapshot{info: compact(rec.Info), hash: rec.SecretHash, attrs: attrs.in(rec.Data), own: true, anchor: anchor, now: microsOf(now)}
	sn.info.Version = version
	sn.info.CreatedAt, sn.info.AccessedAt = sn.now, sn.now
	if before != nil {
		sn.info.CreatedAt = before.info.CreatedAt
		sn.info.AccessedAt = max(sn.now, before.info.AccessedAt)
	}
	sn.activity = m.activities.of(rec.Key.ID, before)
	sn.activity.state.set(isStored)
	raise(&sn.activity.written, int64(anchor))
	sn.setDeadline()
	return sn
}
