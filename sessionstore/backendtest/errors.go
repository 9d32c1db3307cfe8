package backendtest

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-sessions/holdfast/sessionstore"
)

const contextSentence = "All methods are safe for concurrent use, honour the context's end, and return errors that wrap this package's sentinels where a sentence names one;"

// promptly is how soon a call whose context has ended must return: far from what
// it takes, but less than any timeout of a driver.
const promptly = 10 * time.Second

var errorSubtests = []subtest{
	{"every method honours the context's end", contextSentence, func(c *check) {
		stored := c.login(c.name("app"), c.name("bob"), 0)
		cancelled, cancel := context.WithCancel(c.ctx)
		cancel()
		expired, cancel := context.WithDeadline(c.ctx, time.Unix(0, 0))
		defer cancel()
		for _, ctx := range []context.Context{cancelled, expired} {
			for name, call := range calls(c.b, stored, c.session(stored.Key.App), sessionstore.Sweep{ID: stored.Key.ID, Apps: []string{stored.Key.App}, Limit: 1}) {
				start := time.Now()
				if err := call(ctx); err == nil {
					c.Errorf("%s with a context that had ended returned no error", name)
				}
				if took := time.Since(start); took > promptly {
					c.Errorf("%s with a context that had ended took %v", name, took)
				}
			}
		}
		c.load(stored.Key) // and the backend is still usable
	}},
	{"no error text contains a secret hash or data", "No error text contains a secret, a secret's hash or data.", func(c *check) {
		taken := c.login(c.name("app"), c.name("bob"), 0)
		rec := *taken
		rec.SecretHash, rec.Data = newHash(), []byte("<<the data in plain text>>")
		tooLong := c.session(c.name("app"))
		tooLong.SecretHash, tooLong.Data = rec.SecretHash, rec.Data
		tooLong.Principal = strings.Repeat("p", 100_000) // some databases quote what they refuse
		binary := *tooLong
		binary.Principal = "\xff\x00"
		unknown := c.part(c.name("app"), newID(), rec.SecretHash)
		unknown.Data = rec.Data
		limited := c.session(taken.Key.App)
		limited.SecretHash, limited.Data, limited.Principal = rec.SecretHash, rec.Data, taken.Principal
		cancelled, cancel := context.WithCancel(c.ctx)
		cancel()

		errs := make(map[string]error)
		_, errs["Create under an ID that exists"] = c.b.Create(c.ctx, &rec, sessionstore.Condition{})
		_, errs["Create without proof"] = c.b.Create(c.ctx, unknown, sessionstore.Condition{SecretHash: rec.SecretHash})
		_, errs["Create beyond the limit"] = c.b.Create(c.ctx, limited, sessionstore.Condition{MaxSessions: 1})
		_, errs["Create with a principal too long"] = c.b.Create(c.ctx, tooLong, sessionstore.Condition{})
		_, errs["Create with a principal that is no text"] = c.b.Create(c.ctx, &binary, sessionstore.Condition{})
		_, errs["Create with a cancelled context"] = c.b.Create(cancelled, unknown, sessionstore.Condition{})
		errs["Update with a wrong hash"] = c.b.Update(c.ctx, &rec, sessionstore.Condition{Version: 1, SecretHash: rec.SecretHash})
		errs["Update with a cancelled context"] = c.b.Update(cancelled, &rec, matching(taken))
		rec.Principal = tooLong.Principal
		errs["Update with a principal too long"] = c.b.Update(c.ctx, &rec, matching(taken))

		hash := rec.SecretHash[:]
		for call, err := range errs {
			if err == nil {
				continue // this backend refuses less than others
			}
			for _, form := range []string{
				string(rec.Data), hex.EncodeToString(rec.Data), base64.StdEncoding.EncodeToString(rec.Data)[:16], fmt.Sprint(rec.Data),
				string(hash), hex.EncodeToString(hash), base64.StdEncoding.EncodeToString(hash), base64.RawURLEncoding.EncodeToString(hash), fmt.Sprint(hash),
			} {
				if strings.Contains(strings.ToLower(fmt.Sprintf("%v %+v", err, err)), strings.ToLower(form)) {
					c.Errorf("%s returned an error that contains data or a secret's hash", call)
					break
				}
			}
		}
	}},
}

// calls returns a call of each method: those that change something would change
// stored, or create rec.
func calls(b sessionstore.Backend, stored, rec *sessionstore.Record, sweep sessionstore.Sweep) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Load": func(ctx context.Context) error {
			_, err := b.Load(ctx, stored.Key, 0)
			return err
		},
		"Create": func(ctx context.Context) error {
			_, err := b.Create(ctx, rec, sessionstore.Condition{})
			return err
		},
		"Update": func(ctx context.Context) error { return b.Update(ctx, stored, matching(stored)) },
		"Touch": func(ctx context.Context) error {
			return b.Touch(ctx, []sessionstore.Touch{{Key: stored.Key}})
		},
		"Delete": func(ctx context.Context) error {
			_, err := b.Delete(ctx, sessionstore.Selector{ID: rec.Key.ID})
			return err
		},
		"List": func(ctx context.Context) error {
			for _, err := range b.List(ctx, sessionstore.Selector{Principal: stored.Principal}) {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"DeleteExpired": func(ctx context.Context) error {
			_, _, err := b.DeleteExpired(ctx, sweep)
			return err
		},
	}
}
