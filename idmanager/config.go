package idmanager

import (
	"cmp"
	"fmt"
	"log/slog"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// Defaults of [Config].
const (
	DefaultSweepInterval = time.Minute
	DefaultSweepBatch    = 2048
	DefaultSweepTime     = time.Millisecond
	DefaultOrphanAge     = time.Hour
	DefaultTimeout       = 5 * time.Second

	DefaultPollInterval   = time.Second
	DefaultFeedTimeout    = 5 * time.Second
	DefaultEventRetention = 15 * time.Minute

	DefaultHeartbeatInterval = 2 * time.Second
)

// Config configures a [Manager]. The zero value, or nil, is the default.
type Config struct {
	// Node is this process's name: stored with the sessions it writes, and
	// appended to tokens as the route that balancers prefer. It must be unique
	// among the processes of one database, 1 to 63 bytes of A-Z a-z 0-9 _ and -;
	// [Manager.Run] ends with an error if it is not.
	// Defaults to none.
	Node string

	// SweepInterval is how often expired sessions are removed; each pause is up
	// to a quarter longer, so that nodes do not sweep in step. The special value
	// -1 leaves sweeping to other processes. Defaults to 1 minute.
	SweepInterval time.Duration

	// SweepTime is how long one sweeping transaction is to take; it may always take three
	// times as long as the shortest so far. How many records it looks at follows from that
	// and from how quick the database was so far. After each the sweep rests a tenth as
	// long as it took: the busier the database, the longer; and it looks at no more than
	// 32,000 records per second, but at 16 or more in each transaction (fewer at first, after
	// a failure, or if SweepBatch is smaller), or a database that is always busy would be left
	// with what has expired. A shorter time harms others less and sweeps less per second.
	// Defaults to 1 millisecond.
	SweepTime time.Duration

	// SweepBatch is the most records that one sweeping transaction looks at, however
	// quick the database is: what they hold is in memory until the listeners have
	// been called. Defaults to 2048.
	SweepBatch int

	// OrphanAge is how long after their expiry the sessions of applications that
	// are not attached here are removed too, by a process that cannot announce
	// them. The special value -1 leaves them alone. Defaults to 1 hour.
	OrphanAge time.Duration

	// Timeout bounds each statement that the ID manager itself runs. At least 1ms.
	// Defaults to 5 seconds.
	Timeout time.Duration

	// PollInterval is how often events are read, so about how long other nodes'
	// invalidations, revocations and renewals take to be heard here where the
	// database has no doorbell. Defaults to 1 second.
	PollInterval time.Duration

	// FeedTimeout is how long cached copies go on answering when events cannot be
	// read, at least twice PollInterval. After it each request asks the database.
	// Defaults to 5 seconds.
	FeedTimeout time.Duration

	// EventRetention is how long events are kept; a node that was away for half of
	// it drops its copies. At least 1 minute, and 4 times FeedTimeout.
	// Defaults to 15 minutes.
	EventRetention time.Duration

	// HeartbeatInterval is how often this process renews its entry in the registry
	// of nodes. The special value -1 registers nothing. Defaults to 2 seconds.
	HeartbeatInterval time.Duration

	// NodeTTL is how long this process counts as alive after its latest heartbeat,
	// at least 3 times HeartbeatInterval. So long after it was killed another one
	// can take its name. Defaults to 5 times HeartbeatInterval.
	NodeTTL time.Duration

	// RandomIDs makes IDs version 4 UUIDs instead of version 7, for databases
	// that spread rows by range of key. Defaults to false: version 7 keeps
	// B-tree inserts local.
	RandomIDs bool

	// Logger hears of what Run cannot return to a caller. Defaults to [slog.Default].
	Logger *slog.Logger
}

func (c *Config) resolved() (Config, error) {
	if c == nil {
		c = &Config{}
	}
	r := *c
	r.SweepInterval = cmp.Or(c.SweepInterval, DefaultSweepInterval)
	r.SweepTime = cmp.Or(c.SweepTime, DefaultSweepTime)
	r.SweepBatch = cmp.Or(c.SweepBatch, DefaultSweepBatch)
	r.OrphanAge = cmp.Or(c.OrphanAge, DefaultOrphanAge)
	r.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	r.PollInterval = cmp.Or(c.PollInterval, DefaultPollInterval)
	r.FeedTimeout = cmp.Or(c.FeedTimeout, DefaultFeedTimeout)
	r.EventRetention = cmp.Or(c.EventRetention, DefaultEventRetention)
	r.HeartbeatInterval = cmp.Or(c.HeartbeatInterval, DefaultHeartbeatInterval)
	r.NodeTTL = cmp.Or(c.NodeTTL, 5*max(0, r.HeartbeatInterval))
	if r.Logger == nil {
		r.Logger = slog.Default()
	}
	return r, r.validate()
}

func (c *Config) validate() error {
	if c.Node != "" {
		if err := sessionstore.ValidateRoute(c.Node); err != nil {
			return fmt.Errorf("idmanager: Node: %w", err)
		}
	}
	switch {
	case c.SweepInterval < time.Millisecond && c.SweepInterval != -1:
		return fmt.Errorf("idmanager: SweepInterval is %v, want at least 1ms, or -1 for none", c.SweepInterval)
	case c.SweepTime < time.Millisecond || c.SweepTime > time.Second:
		return fmt.Errorf("idmanager: SweepTime is %v, want 1ms to 1s", c.SweepTime)
	case c.SweepBatch < 1 || c.SweepBatch > 10_000:
		return fmt.Errorf("idmanager: SweepBatch is %d, want 1 to 10000", c.SweepBatch)
	case c.OrphanAge < 0 && c.OrphanAge != -1:
		return fmt.Errorf("idmanager: OrphanAge is %v, want a positive duration, or -1 for never", c.OrphanAge)
	case c.Timeout < time.Millisecond:
		return fmt.Errorf("idmanager: Timeout is %v, want at least 1ms", c.Timeout)
	case c.PollInterval < time.Millisecond:
		return fmt.Errorf("idmanager: PollInterval is %v, want at least 1ms", c.PollInterval)
	case c.FeedTimeout < 2*c.PollInterval:
		return fmt.Errorf("idmanager: FeedTimeout %v is less than twice PollInterval %v, so copies would seldom answer", c.FeedTimeout, c.PollInterval)
	case c.EventRetention < max(time.Minute, 4*c.FeedTimeout):
		return fmt.Errorf("idmanager: EventRetention is %v, want at least 1m and 4 times FeedTimeout %v", c.EventRetention, c.FeedTimeout)
	case c.HeartbeatInterval < 10*time.Millisecond && c.HeartbeatInterval != -1:
		return fmt.Errorf("idmanager: HeartbeatInterval is %v, want at least 10ms, or -1 for none", c.HeartbeatInterval)
	case c.HeartbeatInterval == -1 && c.NodeTTL != 0:
		return fmt.Errorf("idmanager: NodeTTL is %v but HeartbeatInterval -1 registers nothing", c.NodeTTL)
	case c.NodeTTL < 3*c.HeartbeatInterval:
		return fmt.Errorf("idmanager: NodeTTL %v is less than 3 times HeartbeatInterval %v, so a delay would look like death", c.NodeTTL, c.HeartbeatInterval)
	}
	return nil
}
