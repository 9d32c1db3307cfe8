package sqlbackend

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A statement is SQL text as the driver wants it, and the names of the values that
// go with it, in order. One that takes rows has a part that is repeated for each.
type statement struct {
	text   string // with rows: what stands before them
	params []string

	literals bool // values may be written into it
	noWait   bool // it fails if it would wait for a lock

	row, tail             string // "" unless the statement takes rows
	rowParams, tailParams []string
}

// args are the values of a statement's parameters, by name.
type args map[string]any

var (
	snippetRE = regexp.MustCompile(`\{[a-z_]+\}`)
	paramRE   = regexp.MustCompile(`@[a-z]+`)
)

// compile renders a dialect's text once and for all.
func (d *Dialect) compile(text string, names map[string]string) (*statement, error) {
	for range 5 { // snippets contain snippets
		text = snippetRE.ReplaceAllStringFunc(text, func(s string) string {
			if with, ok := names[s[1:len(s)-1]]; ok {
				return with
			}
			if with, ok := d.Snippets[s[1:len(s)-1]]; ok {
				return with
			}
			return s
		})
	}
	if unknown := snippetRE.FindString(text); unknown != "" {
		return nil, fmt.Errorf("sqlbackend: dialect %s: no snippet %s", d.Name, unknown)
	}
	st := new(statement)
	if head, rest, ok := strings.Cut(text, "[["); ok {
		row, tail, _ := strings.Cut(rest, "]]")
		if st.text = d.number(head, &st.params); d.Numbered != "" || len(st.params) > 0 {
			return nil, fmt.Errorf("sqlbackend: dialect %s: parameters before rows", d.Name)
		}
		st.row, st.tail = d.number(row, &st.rowParams), d.number(tail, &st.tailParams)
	} else {
		st.text = d.number(text, &st.params)
	}
	if st.literals = d.Literals; st.literals {
		n := len(st.params) + len(st.rowParams) + len(st.tailParams)
		if strings.Count(st.text+st.row+st.tail, "?") != n {
			return nil, fmt.Errorf("sqlbackend: dialect %s: a question mark that is no placeholder", d.Name)
		}
	}
	return st, nil
}

// number replaces the names of parameters by placeholders, and appends them to params.
func (d *Dialect) number(text string, params *[]string) string {
	return paramRE.ReplaceAllStringFunc(text, func(s string) string {
		name := s[1:]
		if d.Numbered == "" {
			*params = append(*params, name)
			return "?"
		}
		i := slices.Index(*params, name)
		if i < 0 {
			i = len(*params)
			*params = append(*params, name)
		}
		return d.Numbered + strconv.Itoa(i+1)
	})
}

// values returns a's values in the order of the statement's parameters.
func (st *statement) values(a args) ([]any, error) {
	if len(st.params) == 0 {
		return nil, nil
	}
	return appendValues(make([]any, 0, len(st.params)), st.params, a)
}

// A jsonList is a list in JSON that has no text but hexadecimal digits and the names
// of columns, so nothing in it needs escaping in SQL, whatever the server's settings.
type jsonList string

// with returns the text and the values to send with it, none if all of them could be
// written into the text.
func (st *statement) with(a args) (text string, values []any, err error) {
	if values, err = st.values(a); err != nil {
		return "", nil, err
	}
	text, values = st.fill(st.text, values)
	return text, values, nil
}

// withRows is with for a statement that takes rows, at least one.
func (st *statement) withRows(rows []args, rest args) (text string, values []any, err error) {
	values = make([]any, 0, len(st.rowParams)*len(rows)+len(st.tailParams))
	for _, row := range rows {
		if values, err = appendValues(values, st.rowParams, row); err != nil {
			return "", nil, err
		}
	}
	if values, err = appendValues(values, st.tailParams, rest); err != nil {
		return "", nil, err
	}
	text, values = st.fill(st.text+st.row+strings.Repeat(", "+st.row, len(rows)-1)+st.tail, values)
	return text, values, nil
}

// literalBytes bounds the text that values are written into. Where there is much to
// send anyway, a round trip more matters little, and twice the bytes do.
const literalBytes = 256 << 10

// fill writes values into the text, if that is allowed, all of them are of kinds whose
// text is known, and it does not become too long. Bytes are written in hexadecimal, so
// nothing in them needs escaping, whatever the connection's character set and mode.
func (st *statement) fill(text string, values []any) (string, []any) {
	if !st.literals || len(values) == 0 {
		return text, values
	}
	size := len(text)
	for _, v := range values {
		switch v := v.(type) {
		case int64, bool:
			size += 20
		case jsonList:
			size += len(v) + 2
		case []byte:
			size += 2*len(v) + 3
		default:
			return text, values
		}
	}
	if size > literalBytes {
		return text, values
	}
	filled := make([]byte, 0, size)
	for _, v := range values {
		before, after, _ := strings.Cut(text, "?")
		filled, text = append(filled, before...), after
		switch v := v.(type) {
		case int64:
			filled = strconv.AppendInt(filled, v, 10)
		case bool:
			filled = strconv.AppendBool(filled, v)
		case jsonList:
			filled = append(append(append(filled, '\''), v...), '\'')
		case []byte:
			if v == nil {
				filled = append(filled, "NULL"...)
				continue
			}
			filled = append(hex.AppendEncode(append(filled, "x'"...), v), '\'')
		}
	}
	return string(append(filled, text...)), nil
}

func appendValues(values []any, params []string, a args) ([]any, error) {
	for _, name := range params {
		v, ok := a[name]
		if !ok {
			return nil, fmt.Errorf("sqlbackend: parameter @%s has no value", name)
		}
		values = append(values, v)
	}
	return values, nil
}

// statements are a dialect's Statements, compiled.
type statements struct {
	schemaVersion, load, createNew, clock, insert, lockIDs, lockFreeIDs, update, renewSiblings, collide,
	countSessions, touch, findIDs, selectIDs, deleteRows, listID, listPrincipal,
	selectDue, sweepDue, selectExpired, moveSlots,
	updateAnnounced, siblingVersions, storeEvents, events, pruneEvents,
	renewNode, insertNode, findNode, listNodes, deleteNode, pruneNodes,
	updateMany, updateAll, lockMany, writeMany, loadMany, createMany, takenIDs, deleteIDs *statement
}

// unlessLocked is what stands in LockIDs for whether it waits for locked rows.
const unlessLocked = "{unless_locked}"

func (d *Dialect) compileAll(names map[string]string) (*statements, error) {
	var sts statements
	t := &d.Statements
	for _, s := range []struct {
		to   **statement
		text string
	}{
		{&sts.schemaVersion, t.SchemaVersion}, {&sts.load, t.Load}, {&sts.createNew, t.CreateNew},
		{&sts.clock, t.Clock}, {&sts.insert, t.Insert}, {&sts.lockIDs, strings.ReplaceAll(t.LockIDs, unlessLocked, "")},
		{&sts.lockFreeIDs, strings.ReplaceAll(t.LockIDs, unlessLocked, "NOWAIT")},
		{&sts.update, t.Update}, {&sts.renewSiblings, t.RenewSiblings}, {&sts.collide, t.Collide},
		{&sts.countSessions, t.CountSessions}, {&sts.touch, t.Touch}, {&sts.findIDs, t.FindIDs},
		{&sts.selectIDs, t.SelectIDs}, {&sts.deleteRows, t.DeleteRows}, {&sts.listID, t.ListID},
		{&sts.listPrincipal, t.ListPrincipal}, {&sts.selectDue, t.SelectDue},
		{&sts.sweepDue, t.SweepDue}, {&sts.selectExpired, t.SelectExpired}, {&sts.moveSlots, t.MoveSlots},
		{&sts.updateAnnounced, t.UpdateAnnounced}, {&sts.siblingVersions, t.SiblingVersions},
		{&sts.storeEvents, t.StoreEvents}, {&sts.events, t.Events}, {&sts.pruneEvents, t.PruneEvents},
		{&sts.renewNode, t.RenewNode}, {&sts.insertNode, t.InsertNode}, {&sts.findNode, t.FindNode},
		{&sts.listNodes, t.ListNodes}, {&sts.deleteNode, t.DeleteNode}, {&sts.pruneNodes, t.PruneNodes},
		{&sts.updateMany, t.UpdateMany}, {&sts.updateAll, t.UpdateAll},
		{&sts.lockMany, t.LockMany}, {&sts.writeMany, t.WriteMany},
		{&sts.loadMany, t.LoadMany}, {&sts.createMany, t.CreateMany}, {&sts.takenIDs, t.TakenIDs},
		{&sts.deleteIDs, t.DeleteIDs},
	} {
		if s.text == "" {
			continue
		}
		st, err := d.compile(s.text, names)
		if err != nil {
			return nil, err
		}
		*s.to = st
	}
	sts.lockFreeIDs.noWait, sts.touch.noWait = true, true
	return &sts, nil
}
