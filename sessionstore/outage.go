package sessionstore

import (
	"context"
	"log/slog"
	"time"
)

// outageLogInterval is how often it is logged that copies stand in for the database:
// every request says the same.
const outageLogInterval = 10 * time.Second

// standIn returns the copy that answers a claim although the database, asked about it,
// failed with err; nil if none may.
//
// It is a copy that satisfies the freshness rule but for what only the database or the
// event feed could say. What the feed has outdated is not in the cache any more.
func (m *Manager) standIn(ctx context.Context, claim Claim, hash SecretHash, err error) *snapshot {
	if m.cfg.Outage != ServeCached || claim.Fresh || ctx.Err() != nil {
		return nil
	}
	now := m.now()
	sn := m.cache.get(claim.Token.ID())
	if sn == nil || !equalHash(sn.hash, hash) || sn.expired(now) ||
		sn.info.Version < claim.Version || // P4
		now-sn.anchor-m.cfg.OutageGrace > m.cfg.MaxStale { // P6, as far as it goes
		return nil
	}
	m.stats.outageHits.Add(1)
	last := m.outageLogged.Load()
	if (last == 0 || now-time.Duration(last) >= outageLogInterval) && m.outageLogged.CompareAndSwap(last, int64(now)) {
		m.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "database does not answer, cached sessions stand in",
			slog.String("app", m.app), slog.Any("error", err))
	}
	return sn
}
