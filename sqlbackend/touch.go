package sqlbackend

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

// maxRefusals bounds how many statements of a Touch meet locks until it pauses: beside
// somebody who keeps the whole table locked there would be thousands.
const maxRefusals = 128

// Touch implements [sessionstore.Backend], a statement for every 256 sessions, and more
// if some are locked. These come last. On an error, the others may have been touched.
func (b *Backend) Touch(ctx context.Context, touches []sessionstore.Touch) error {
	due, refusals := latest(touches), 0
	touch := func(ctx context.Context, some []sessionstore.Touch) error {
		if refusals >= maxRefusals {
			return errPassedOver // for now
		}
		err := b.touchRows(ctx, some)
		if errors.Is(err, errPassedOver) {
			refusals++
		}
		return err
	}
	due, err := free(ctx, b, due, batchRows, touch)
	if err == nil && len(due) > 0 {
		err = b.untilFree(ctx, func(ctx context.Context) (err error) {
			slices.Reverse(due) // those that it did not come to are first now
			refusals = 0
			if due, err = free(ctx, b, due, batchRows, touch); err == nil && len(due) > 0 {
				err = errPassedOver
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("touch %d sessions: %w", len(touches), err)
	}
	return nil
}

func (b *Backend) touchRows(ctx context.Context, touches []sessionstore.Touch) error {
	rows := make([]listedRow, len(touches))
	for i, t := range touches {
		rows[i] = listedRow{key: t.Key, ago: t.Ago}
	}
	a := b.listRows(rows)
	a["slack"] = slotSlack.Microseconds()
	return b.alone(ctx, func(ctx context.Context, q runner) error {
		_, err := q.exec(ctx, b.sql.touch, a)
		return b.passedOver(b.sql.touch, err)
	})
}

// latest returns one touch per key, the latest, in order of keys: the order in
// which rows are locked.
func latest(touches []sessionstore.Touch) []sessionstore.Touch {
	byKey := make(map[sessionstore.Key]time.Duration, len(touches))
	for _, t := range touches {
		ago := max(t.Ago, 0)
		if other, ok := byKey[t.Key]; !ok || ago < other {
			byKey[t.Key] = ago
		}
	}
	merged := make([]sessionstore.Touch, 0, len(byKey))
	for key, ago := range byKey {
		merged = append(merged, sessionstore.Touch{Key: key, Ago: ago})
	}
	slices.SortFunc(merged, func(x, y sessionstore.Touch) int { return compareKeys(x.Key, y.Key) })
	return merged
}

func compareKeys(x, y sessionstore.Key) int {
	return cmp.Or(compareIDs(x.ID, y.ID), cmp.Compare(x.App, y.App))
}

func compareIDs(x, y sessionstore.ID) int { return bytes.Compare(x[:], y[:]) }
