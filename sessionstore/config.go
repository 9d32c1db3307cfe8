package sessionstore

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Defaults of [Config]. Times follow OWASP's session management cheat sheet for
// applications of ordinary risk.
const (
	DefaultIdleTimeout  = 30 * time.Minute // or Lifetime, if that is shorter
	DefaultLifetime     = 24 * time.Hour
	DefaultMaxStale     = time.Minute
	DefaultTimeout      = 5 * time.Second
	DefaultCacheBytes   = 64 << 20
	DefaultMaxDataBytes = 1 << 20
	DefaultOutageGrace  = 5 * time.Minute

	// maxDefaultTouchInterval bounds how far the stored access time lags behind, unless
	// TouchInterval says otherwise.
	maxDefaultTouchInterval = time.Minute
	// maxDuration keeps time arithmetic in microseconds far from overflow.
	maxDuration = 100 * 365 * 24 * time.Hour
)

// Freshness says when a cached copy may answer without the database.
type Freshness int

const (
	// Causal, the default: a client reads at least what it was told of, and what
	// others did within the event delay (P4, P6).
	Causal Freshness = iota
	// Strict: every request that presents a session confirms it with the
	// database, so it reads everything committed before it began.
	Strict
)

// LimitPolicy says what happens when a principal begins more sessions than
// [Config.MaxSessions].
type LimitPolicy int

const (
	// RefuseNew, the default: the login fails with [ErrLimit] and changes nothing.
	// It holds strictly, also under concurrent logins.
	RefuseNew LimitPolicy = iota
	// EvictOldest: the login succeeds, and the principal's least recently used
	// sessions are ended with [CauseEvicted] before it is answered, as far as they were
	// begun before it. Of more logins at once than MaxSessions the latest stay. There
	// are more than that
	//   - until the logins are answered that are under way, on any node,
	//   - until the next login, if the others are all used between a login and the end of
	//     the oldest: then its own stays too, on each node at most one,
	//   - until the next login, if ending them fails or takes longer than Timeout, which
	//     is logged, once for all logins that waited for it.
	EvictOldest
)

// OutagePolicy says what answers a request whose session the database cannot be
// asked about.
type OutagePolicy int

const (
	// FailClosed, the default: nothing does, and [Manager.Begin] returns the error.
	FailClosed OutagePolicy = iota
	// ServeCached: a cached copy of the session, if this node has one with the right
	// secret that has not expired, is no older than what the client was told of (P4),
	// and was confirmed within MaxStale+OutageGrace. A claim that is Fresh, and
	// [Session.Refresh], are never answered so, and changes need the database as ever.
	//
	// It weakens P6: a node that cannot ask goes on honouring, until then, a session
	// that was invalidated, revoked or renewed through another node, also under the
	// secret of before, and shows attributes as they were. All other promises hold.
	ServeCached
)

// Config configures a [Manager]. The zero value, or nil, is the default.
type Config struct {
	// IdleTimeout ends a session that was not used for so long. Sessions keep the one
	// that they began with, unless [Session.SetIdleTimeout] gives them another.
	// The special value -1 means no idle timeout. Defaults to 30 minutes, or to
	// Lifetime if that is shorter.
	IdleTimeout time.Duration

	// Lifetime ends a session so long after its creation, however it is used. Sessions
	// keep the one that they began with, as with IdleTimeout.
	// The special value -1 means no limit. Defaults to 24 hours.
	Lifetime time.Duration

	// TouchInterval is how often the latest access times are written back. It is
	// at most half the idle timeout. Defaults to a tenth of the idle timeout, at
	// most 1 minute.
	TouchInterval time.Duration

	// MaxStale is how long a cached copy may answer without having been loaded,
	// written or confirmed here. Defaults to 1 minute.
	MaxStale time.Duration

	// Timeout bounds each load and each commit, retries included; a request that
	// was cancelled does not cut its commit short. A commit that conflicts at its very end
	// may wait for one more load, and so take twice as long. At least 1ms. Defaults to 5 seconds.
	Timeout time.Duration

	// Freshness says when a cached copy may answer. Defaults to Causal.
	Freshness Freshness

	// Outage says what answers while the database does not. Defaults to FailClosed.
	Outage OutagePolicy

	// OutageGrace is how long beyond MaxStale a copy may answer under ServeCached,
	// and must be 0 otherwise. Defaults to 5 minutes.
	OutageGrace time.Duration

	// CacheBytes bounds the memory of cached sessions. The special value -1
	// keeps no copies, so that every request loads its session.
	// Defaults to 64 MiB.
	CacheBytes int64

	// MaxDataBytes bounds a session's encoded attributes; a commit beyond it
	// fails with [ErrTooLarge]. Defaults to 1 MiB, at most 16 MiB-1 (MySQL's MEDIUMBLOB).
	MaxDataBytes int

	// MaxSessions is how many live sessions a principal may have in this
	// application. Defaults to 0, no limit.
	MaxSessions int

	// LimitPolicy says what happens to a login beyond MaxSessions.
	// Defaults to RefuseNew.
	LimitPolicy LimitPolicy

	// Codec encodes attribute values: [JSON], [Gob], CBOR of package
	// sessionstore/cborcodec, or one of these [Encrypted]. Defaults to [JSON].
	Codec Codec

	// Listeners are called in this order. Defaults to none.
	Listeners []Listener

	// Logger hears of what has no caller to return to: listeners that panic,
	// attributes that do not decode. Defaults to [slog.Default].
	Logger *slog.Logger
}

// resolved returns a copy of c with every default in place, so that New's
// caller may change or reuse its own. Unlimited durations become 0, as in a Record.
func (c *Config) resolved() (Config, error) {
	if c == nil {
		c = &Config{}
	}
	r := *c
	r.MaxStale = cmp.Or(c.MaxStale, DefaultMaxStale)
	r.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	r.CacheBytes = cmp.Or(c.CacheBytes, DefaultCacheBytes)
	r.MaxDataBytes = cmp.Or(c.MaxDataBytes, DefaultMaxDataBytes)
	r.Listeners = slices.Clone(c.Listeners)
	if r.Codec == nil {
		r.Codec = JSON{}
	}
	if r.Logger == nil {
		r.Logger = slog.Default()
	}
	if r.Outage == ServeCached {
		r.OutageGrace = cmp.Or(c.OutageGrace, DefaultOutageGrace)
	}
	var err error
	if r.Lifetime, err = resolveLimit("Lifetime", cmp.Or(c.Lifetime, DefaultLifetime)); err != nil {
		return r, err
	}
	idle := min(DefaultIdleTimeout, cmp.Or(r.Lifetime, DefaultIdleTimeout))
	if r.IdleTimeout, err = resolveLimit("IdleTimeout", cmp.Or(c.IdleTimeout, idle)); err != nil {
		return r, err
	}
	r.TouchInterval = cmp.Or(c.TouchInterval, maxDefaultTouchInterval)
	if r.IdleTimeout > 0 && c.TouchInterval == 0 {
		r.TouchInterval = max(min(r.IdleTimeout/10, maxDefaultTouchInterval), time.Millisecond)
	}
	return r, r.validate()
}

// resolveLimit turns the special value -1 into 0, "without limit".
func resolveLimit(field string, d time.Duration) (time.Duration, error) {
	switch {
	case d == -1:
		return 0, nil
	case d < time.Millisecond:
		return 0, fmt.Errorf("sessionstore: %s is %v, want at least 1ms, or -1 for no limit", field, d)
	case d > maxDuration:
		return 0, fmt.Errorf("sessionstore: %s is %v, want at most %v, or -1 for no limit", field, d, maxDuration)
	}
	return d, nil
}

func (c *Config) validate() error {
	switch {
	case c.IdleTimeout > 0 && c.Lifetime > 0 && c.IdleTimeout > c.Lifetime:
		return fmt.Errorf("sessionstore: IdleTimeout %v is longer than Lifetime %v, so it could never pass", c.IdleTimeout, c.Lifetime)
	case c.TouchInterval < time.Millisecond:
		return fmt.Errorf("sessionstore: TouchInterval is %v, want at least 1ms", c.TouchInterval)
	case c.IdleTimeout > 0 && c.TouchInterval > c.IdleTimeout/2:
		return fmt.Errorf("sessionstore: TouchInterval %v is more than half of IdleTimeout %v, so sessions in use would expire", c.TouchInterval, c.IdleTimeout)
	case c.MaxStale < 0:
		return fmt.Errorf("sessionstore: MaxStale is %v, want a positive duration", c.MaxStale)
	case c.Timeout < time.Millisecond:
		return fmt.Errorf("sessionstore: Timeout is %v, want at least 1ms", c.Timeout)
	case c.Freshness != Causal && c.Freshness != Strict:
		return fmt.Errorf("sessionstore: Freshness is %d, want Causal or Strict", c.Freshness)
	case c.Outage != FailClosed && c.Outage != ServeCached:
		return fmt.Errorf("sessionstore: Outage is %d, want FailClosed or ServeCached", c.Outage)
	case c.OutageGrace < 0 || c.OutageGrace > maxDuration:
		return fmt.Errorf("sessionstore: OutageGrace is %v, want a positive duration, at most %v", c.OutageGrace, maxDuration)
	case c.Outage == FailClosed && c.OutageGrace != 0:
		return fmt.Errorf("sessionstore: OutageGrace is %v but Outage is FailClosed", c.OutageGrace)
	case c.Outage == ServeCached && c.Freshness == Strict:
		return fmt.Errorf("sessionstore: Outage is ServeCached but Freshness is Strict, which lets no copy answer")
	case c.Outage == ServeCached && c.CacheBytes == -1:
		return fmt.Errorf("sessionstore: Outage is ServeCached but CacheBytes -1 keeps no copies")
	case c.CacheBytes < -1:
		return fmt.Errorf("sessionstore: CacheBytes is %d, want a positive number, or -1 for no cache", c.CacheBytes)
	case c.MaxDataBytes < 0 || c.MaxDataBytes > 1<<24-1:
		return fmt.Errorf("sessionstore: MaxDataBytes is %d, want 1 to %d", c.MaxDataBytes, 1<<24-1)
	case c.MaxSessions < 0:
		return fmt.Errorf("sessionstore: MaxSessions is %d, want 0 for no limit or more", c.MaxSessions)
	case c.LimitPolicy != RefuseNew && c.LimitPolicy != EvictOldest:
		return fmt.Errorf("sessionstore: LimitPolicy is %d, want RefuseNew or EvictOldest", c.LimitPolicy)
	case c.LimitPolicy == EvictOldest && c.MaxSessions == 0:
		return fmt.Errorf("sessionstore: LimitPolicy is EvictOldest but MaxSessions sets no limit")
	}
	return nil
}
