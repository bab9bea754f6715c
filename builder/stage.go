// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/kaniko-go/kaniko-go/builder/internal/cache"
	"github.com/kaniko-go/kaniko-go/builder/internal/layer"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/progress"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
	"github.com/kaniko-go/kaniko-go/builder/isolation"
)

// run carries out the instructions of one stage.
type run struct {
	x     *executor
	stage *stage
	// tree is the state so far; nil as long as no instruction has asked for it. pending are layers that the state has
	// and tree does not yet.
	tree    *tree.Tree
	pending []*hit
	// tip is the newest layer, hits are those that the cache has for what comes next.
	tip  *tip
	hits []*hit
}

// stage executes s when the stages that it needs are done.
func (x *executor) stage(ctx context.Context, s *stage) error {
	r := &run{x: x, stage: s, hits: s.hits}
	if err := x.waitFor(ctx, &s.Base); err != nil {
		return err
	}
	if err := r.from(ctx); err != nil {
		return x.file.Wrap(s.Location, &instructionError{text: "FROM " + s.BaseName, err: err})
	}
	for _, in := range s.Instructions {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.instruction(ctx, in); err != nil {
			var other *dependencyError
			if errors.As(err, &other) {
				return other.err
			}
			return x.file.Wrap(in.Location, &instructionError{text: in.Text, err: err})
		}
	}
	s.tip, s.start, s.rest = r.tip, r.tree, r.pending
	if len(r.pending) == 0 {
		s.result = r.tree
	}
	return r.leave(ctx)
}

// leave gives the root back where another stage waits for it.
func (r *run) leave(ctx context.Context) error {
	if r.stage.root == nil || !r.x.roots.OneAtATime() {
		return nil
	}
	if err := r.written(ctx); err != nil {
		return err
	}
	r.stage.root.Leave(r.tree)
	return nil
}

// from begins the stage. What a named context brings is a layer of the image like any other.
func (r *run) from(ctx context.Context) error {
	s := r.stage
	number := 1
	if s.Base == (plan.Source{}) {
		number = 0 // scratch does not count
	}
	log := r.x.Log.Start(s.label, number, s.Total, "FROM "+s.BaseName)
	switch {
	case s.Base.Image != nil:
		r.tip = baseTip(s.Base.Image)
	case s.Base.Stage != nil:
		r.tip = r.x.stages[s.Base.Stage].tip
	}
	if s.Base.Context == nil {
		log.Done("")
		return nil
	}
	t, err := r.x.contextOf(ctx, s.Base.Context)
	if err != nil {
		return err
	}
	var changes []tree.Change
	if r.tree, changes, err = tree.Canon(tree.Empty(), t, r.x.times, nil); err != nil {
		return err
	}
	log.Done(summary(changes))
	in := &plan.Instruction{Text: "FROM " + s.BaseName, Location: s.Location, History: "FROM " + s.BaseName}
	st := &step{Instruction: in, created: time.Now()}
	s.steps = append(s.steps, st)
	if s.keeps || r.x.cache.Enabled() {
		st.layer = r.x.layers.add(r, in, changes, log, nil)
		r.tip = r.tip.on(st.layer)
	}
	return nil
}

// waitFor waits for the stages among the sources, so that what needs them neither begins too early nor is said to take long.
func (x *executor) waitFor(ctx context.Context, sources ...*plan.Source) error {
	for _, src := range sources {
		if src == nil || src.Stage == nil {
			continue
		}
		if err := wait(ctx, x.stages[src.Stage]); err != nil {
			return err
		}
	}
	return nil
}

// sourcesOf are what an instruction reads from.
func sourcesOf(op plan.Op) []*plan.Source {
	switch op := op.(type) {
	case plan.Copy:
		return []*plan.Source{op.From}
	case plan.Run:
		var out []*plan.Source
		for _, m := range op.Mounts {
			out = append(out, m.From)
		}
		return out
	default:
		return nil
	}
}

// dependencyError is the failure of another stage, which the build ends with wherever it is met first.
type dependencyError struct{ err error }

func (e *dependencyError) Error() string { return e.err.Error() }
func (e *dependencyError) Unwrap() error { return e.err }

// wait waits for another stage.
func wait(ctx context.Context, s *stage) error {
	select {
	case <-s.done:
		if s.err != nil {
			return &dependencyError{s.err}
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// instruction carries out one instruction.
func (r *run) instruction(ctx context.Context, in *plan.Instruction) error {
	if err := r.x.waitFor(ctx, sourcesOf(in.Op)...); err != nil {
		return err
	}
	st := &step{Instruction: in, created: time.Now()}
	r.stage.steps = append(r.stage.steps, st)
	log := r.x.Log.Start(r.stage.label, in.Number, r.stage.Total, in.Text)
	if !in.Layer() {
		// WORKDIR / is such a one: the root is always there.
		log.Done("")
		return nil
	}
	c, err := r.consult(ctx, in)
	if err != nil {
		return err
	}
	if c.hit != nil {
		return r.take(st, c.hit, log)
	}
	before, err := r.current(ctx)
	if err != nil {
		return err
	}
	next, changes, err := r.operate(ctx, in, before, log)
	if err != nil {
		return err
	}
	r.tree, st.created = next, time.Now()
	log.Done(summary(changes) + c.note())
	if r.stage.keeps || r.x.cache.Enabled() {
		st.layer = r.x.layers.add(r, in, changes, log, r.remembering(st, c))
		r.tip = r.tip.on(st.layer)
	}
	return nil
}

// consultation is what the cache had to say of an instruction.
type consultation struct {
	// recipes are the ones under which a layer of the instruction is kept; none if it is not.
	recipes [][]cache.Input
	hit     *hit
	// asked says that a layer was looked for, changed what is not as it was, newBase that there is nothing to compare with.
	asked, newBase bool
	changed        []string
}

// note says it to people.
func (c consultation) note() string {
	switch why := cache.Reason(c.changed); {
	case !c.asked:
		return ""
	case len(c.recipes) == 0:
		return "; not cacheable"
	case c.newBase:
		return "; not in the cache, which has nothing for this base"
	case why == "":
		return "; not in the cache"
	default:
		return "; not in the cache: " + why + " changed"
	}
}

// consult asks the cache for the layer of an instruction, again also where nothing could be foreseen: what was made meanwhile
// may have come out as it was.
func (r *run) consult(ctx context.Context, in *plan.Instruction) (c consultation, err error) {
	x := r.x
	if !x.cache.Enabled() {
		return c, nil
	}
	if len(r.hits) > 0 {
		c.hit, r.hits = r.hits[0], r.hits[1:]
		return c, nil
	}
	c.asked = true
	contents := []bool{false}
	if readsStage(in) {
		contents = append(contents, true)
	}
	for _, content := range contents {
		inputs, err := r.recipe(ctx, in, content)
		var bad *badHitError
		switch {
		case errors.As(err, &bad), ctx.Err() != nil:
			return c, err
		case err != nil:
			return consultation{}, nil //nolint:nilerr // the instruction itself fails of the same, and says it better
		}
		c.recipes = append(c.recipes, inputs)
	}
	if x.req.Cache.off(r.stage.Stage) {
		c.asked = false
		return c, nil
	}
	for n, inputs := range c.recipes {
		if !x.cache.Knows(r.stage.tag(), cache.Op(inputs)) {
			continue
		}
		parent, err := r.tip.id(ctx)
		if err != nil {
			return c, err
		}
		if c.hit, err = x.find(ctx, r.stage, cache.Op(inputs), parent); err != nil || c.hit != nil {
			if c.hit != nil && n > 0 {
				x.alias(ctx, r.stage, c.hit, c.recipes[0])
			}
			return c, err
		}
	}
	c.changed, c.newBase = x.cache.Why(r.stage.tag(), c.recipes[0]), !x.cache.HasRecords(r.stage.tag())
	return c, nil
}

// recipe is the executor's, or what that was when the build looked ahead.
func (r *run) recipe(ctx context.Context, in *plan.Instruction, content bool) ([]cache.Input, error) {
	if in == r.stage.foreseen && !content {
		return r.stage.recipe, nil
	}
	return r.x.recipe(ctx, r.stage, in, content)
}

// take makes a layer of the cache the one of an instruction.
func (r *run) take(st *step, h *hit, log *progress.Step) error {
	size, err := h.layer.Size()
	if err != nil {
		return err
	}
	st.created, st.layer = h.Created, doneJob(h.layer)
	r.pending = append(r.pending, h)
	r.tip = r.tip.on(st.layer)
	log.Cached(size)
	if !r.stage.keeps {
		return nil
	}
	// Foreseen ones are there already, and cost nothing.
	r.x.layers.group.Go(func() error { return r.x.upload(r.x.layers.ctx, h.layer) })
	return nil
}

// remembering puts the layer that is being made into the cache; nil without one.
func (r *run) remembering(st *step, c consultation) func(context.Context, *layer.Layer) error {
	if len(c.recipes) == 0 {
		return nil
	}
	below := r.tip
	return func(ctx context.Context, l *layer.Layer) error {
		return r.x.remember(ctx, r.stage, st, c.recipes, below, l)
	}
}

// operate returns the Tree after an instruction, and what its layer holds.
func (r *run) operate(ctx context.Context, in *plan.Instruction, before *tree.Tree, log *progress.Step) (*tree.Tree, []tree.Change, error) {
	var (
		after  *tree.Tree
		err    error
		ignore func(string) bool
	)
	switch op := in.Op.(type) {
	case plan.Run:
		after, err = r.command(ctx, op, before, log)
		ignore = below(r.x.req.IgnorePaths)
	case plan.Copy:
		if op.Link {
			return r.link(ctx, op, before)
		}
		after, err = r.copy(ctx, op, before)
	case plan.Workdir:
		after, err = workdir(op, before, r.x.times)
	default:
		return nil, nil, fmt.Errorf("no way to carry out a %T", op)
	}
	if err != nil {
		return nil, nil, err
	}
	return tree.Canon(before, after, r.x.times, ignore)
}

// below returns a function that tells whether a path is one of those given, which are absolute, or lies below one.
func below(paths []string) func(string) bool {
	if len(paths) == 0 {
		return nil
	}
	return func(p string) bool {
		for _, dir := range paths {
			dir = strings.TrimPrefix(path.Clean(dir), "/")
			if p == dir || strings.HasPrefix(p, dir+"/") {
				return true
			}
		}
		return false
	}
}

func summary(changes []tree.Change) string {
	if len(changes) == 1 {
		return "1 change"
	}
	return fmt.Sprintf("%d changes", len(changes))
}

// current is the stage's Tree, which is made when it is first needed.
func (r *run) current(ctx context.Context) (*tree.Tree, error) {
	t, err := r.beginning(ctx)
	if err != nil || len(r.pending) == 0 {
		return t, err
	}
	if r.tree, err = r.x.apply(ctx, r.stage, t, r.pending); err != nil {
		return nil, err
	}
	r.pending = nil
	return r.tree, nil
}

// beginning is current without the layers that are pending.
func (r *run) beginning(ctx context.Context) (*tree.Tree, error) {
	if r.tree != nil {
		return r.tree, nil
	}
	var err error
	switch base := r.stage.Base; {
	case base.Stage != nil:
		r.tree, err = r.x.treeOf(ctx, r.x.stages[base.Stage])
	case base.Image != nil:
		r.tree, err = r.x.bases[base.Image].Tree(ctx)
	case base.Context != nil:
		r.tree, err = r.x.contextOf(ctx, base.Context)
	default:
		r.tree = tree.Empty()
	}
	return r.tree, err
}

// treeOf is the Tree of a stage that is done, or the one of what it begins with if no instruction of its own needed one.
func (x *executor) treeOf(ctx context.Context, s *stage) (*tree.Tree, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.result != nil {
		return s.result, nil
	}
	r := run{x: x, stage: s, tree: s.start, pending: s.rest}
	t, err := r.current(ctx)
	if err == nil {
		s.result, s.start, s.rest = t, nil, nil
	}
	return t, err
}

// workdir makes the directory, with all missing above it, for the USER in force.
func workdir(op plan.Workdir, before *tree.Tree, times tree.Times) (*tree.Tree, error) {
	uid, gid := uint32(0), uint32(0)
	if op.User != "" {
		var err error
		if uid, gid, err = before.Owner(op.User); err != nil {
			return nil, err
		}
	}
	return mkdirAll(before, op.Path, tree.Meta{Mode: 0o755, UID: uid, GID: gid, MTime: times.Now()})
}

// mkdirAll makes a directory and those above it, following links, if they are missing. As on disk, the directory in which the first
// is made has the time of that.
func mkdirAll(t *tree.Tree, p string, m tree.Meta) (*tree.Tree, error) {
	real, ino, err := t.Resolve(p, true)
	if err != nil {
		return nil, err
	}
	if ino != nil {
		if ino.Type != tree.Dir {
			return nil, fmt.Errorf("%s: %w", p, tree.ErrNotDir)
		}
		return t, nil
	}
	e := t.Edit()
	done, above := "", ""
	for part := range strings.SplitSeq(real, "/") {
		done = path.Join(done, part)
		if e.Lookup(done) != nil {
			above = done
			continue
		}
		if above != "" {
			touched := e.Lookup(above).Meta
			touched.MTime = m.MTime
			if err := e.SetMeta(above, touched); err != nil {
				return nil, err
			}
			above = ""
		}
		if err := e.Put(done, tree.NewDir(m)); err != nil {
			return nil, err
		}
	}
	return e.Commit(), nil
}

// command executes a RUN.
func (r *run) command(ctx context.Context, op plan.Run, before *tree.Tree, log *progress.Step) (after *tree.Tree, err error) {
	account, err := before.Account(op.User)
	if err != nil {
		return nil, err
	}
	t, err := mkdirAll(before, op.Dir, tree.Meta{Mode: 0o755, UID: account.UID, GID: account.GID, MTime: r.x.times.Now()})
	if err != nil {
		return nil, err
	}
	if err := r.x.fetch(ctx, r.stage); err != nil {
		return nil, err
	}
	root, err := r.root(ctx)
	if err != nil {
		return nil, err
	}
	own, err := r.mounts(ctx, op)
	if err != nil {
		return nil, err
	}
	defer own.release()
	out := log.Output()
	defer func() { err = errors.Join(err, out.Close()) }()
	opts := r.x.req.Run
	p := isolation.Process{
		Args: op.Args, Env: append(withHome(op.Env, account.Home), own.env...), Dir: op.Dir,
		UID: account.UID, GID: account.GID, Groups: account.Groups,
		Hostname: opts.Hostname, ExtraHosts: opts.Hosts, Network: network(op.Network, opts.Network),
		ShmSize: opts.ShmSize, Ulimits: opts.Ulimits, Timeout: opts.Timeout,
		Stdout: out, Stderr: out, Mounts: own.mounts,
	}
	if op.Hostname != "" {
		p.Hostname = op.Hostname
	}
	for _, f := range op.Files {
		p.Files = append(p.Files, isolation.InlineFile{Path: "/dev/pipes/" + f.Name, Data: []byte(f.Data), Mode: 0o755})
	}
	after, err = root.Run(ctx, t, p)
	var exit *isolation.ExitError
	if errors.As(err, &exit) {
		return nil, &commandError{args: op.Args, exit: exit}
	}
	return after, err
}

// root is the stage's Root. Where it is one directory that RUN writes over, the layers of
// the instructions before must have been read.
func (r *run) root(ctx context.Context) (isolation.Root, error) {
	if r.stage.root == nil {
		if err := r.newRoot(ctx); err != nil {
			return nil, err
		}
	}
	if r.stage.root.Overwrites() {
		return r.stage.root, r.written(ctx)
	}
	return r.stage.root, nil
}

// newRoot asks for a Root. Where there is but one, a stage that had it and then waited for another one that wants it would
// wait for ever: so it waits before.
func (r *run) newRoot(ctx context.Context) error {
	s := r.stage
	if r.x.roots.OneAtATime() {
		for _, in := range s.Instructions {
			if err := r.x.waitFor(ctx, sourcesOf(in.Op)...); err != nil {
				return err
			}
		}
	}
	var parent isolation.Root
	if s.Base.Stage != nil {
		parent = r.x.stages[s.Base.Stage].root
	}
	begin, err := (&run{x: r.x, stage: s}).current(ctx)
	if err != nil {
		return err
	}
	base := tree.Empty()
	if image := bottom(s.Stage); image != nil {
		if base, err = r.x.bases[image].Tree(ctx); err != nil {
			return err
		}
	}
	s.root, err = r.x.roots.Root(ctx, parent, begin, base)
	return err
}

// written waits until the contents of all layers so far have been read.
func (r *run) written(ctx context.Context) error {
	for _, st := range r.stage.steps {
		if st.layer == nil {
			continue
		}
		select {
		case <-st.layer.written:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func withHome(env []string, home string) []string {
	for _, kv := range env {
		if strings.HasPrefix(kv, "HOME=") {
			return slices.Clone(env)
		}
	}
	return append(slices.Clone(env), "HOME="+home)
}

// network is that of the instruction, or of the build where the instruction does not say.
func network(instruction, build string) string {
	switch instruction {
	case "none":
		return isolation.NetworkNone
	case "host":
		return isolation.NetworkHost
	default:
		return build
	}
}
