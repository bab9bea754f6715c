// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
)

func (f *fixture) planRequest(t *testing.T) plan.Request {
	t.Helper()
	req := plan.Request{
		Target: f.target, BuildArgs: maps.Clone(f.args), Labels: f.labels, Contexts: f.contexts,
		BuildPlatform: amd64(), Platform: amd64(),
		Resolve: func(_ context.Context, ref string, platform ocispec.Platform) (*plan.Image, error) {
			return f.planImage(ref, platform)
		},
		ResolveLayout: func(_ context.Context, at string, _ ocispec.Platform) (*plan.Image, error) {
			return f.planImage(at, amd64())
		},
		SourceEpoch: sourceEpoch,
	}
	if f.platform != "" {
		req.Platform, req.ExplicitPlatform = platforms.MustParse(f.platform), true
	}
	if len(f.ignore) > 0 {
		matcher, err := dockerfile.ReadIgnore(strings.NewReader(strings.Join(f.ignore, "\n")))
		if err != nil {
			t.Fatal(err)
		}
		req.Ignored = matcher.Names
	}
	if f.epoch != "" {
		seconds, err := strconv.ParseInt(f.epoch, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		epoch := time.Unix(seconds, 0)
		req.Epoch = &epoch
	}
	return req
}

func (f *fixture) planImage(ref string, platform ocispec.Platform) (*plan.Image, error) {
	raw, err := f.image(ref, platform)
	if err != nil {
		return nil, err
	}
	image := &plan.Image{Ref: ref}
	return image, json.Unmarshal(raw, &image.Config)
}

func sourceEpoch(_ context.Context, source plan.EpochSource) (*time.Time, error) {
	at := time.Unix(commitTime, 0)
	address := ""
	switch {
	case source.Main:
		return nil, nil
	case source.Context != nil:
		address = source.Context.Value
	case source.Add.Git != "":
		return &at, nil
	default:
		address = source.Add.URL
	}
	if _, isGit, _ := dockerfile.GitSource(address); isGit {
		return &at, nil
	}
	if !strings.HasPrefix(address, "http") {
		return nil, nil
	}
	at = time.Unix(urlTime, 0)
	return &at, nil
}

// ours is the plan's outcome.
func ours(t *testing.T, f *fixture) outcome {
	t.Helper()
	file, err := dockerfile.Parse("Dockerfile", f.dockerfile)
	if err != nil {
		return outcome{err: err}
	}
	req := f.planRequest(t)
	p, err := plan.New(t.Context(), file, req)
	if err != nil {
		return outcome{err: err}
	}
	image := p.Target.Config
	image.History = history(p)
	config, err := json.MarshalIndent(image, "", " ")
	if err != nil {
		return outcome{err: err}
	}
	w := &planWriter{graph: newGraph(), plan: p, platform: platforms.Normalize(req.Platform), states: map[*plan.Stage]string{}}
	end := w.stage(p.Target)
	var warnings []string
	for _, warning := range p.Warnings {
		warnings = append(warnings, warningText(warning.Rule, warning.Description, warning.URL, warning.Message, warning.Location))
	}
	slices.Sort(warnings)
	return outcome{config: string(config), graph: w.String() + "end " + end, warnings: strings.Join(warnings, "\n")}
}

// history is the base's and then every instruction's, as BuildKit writes it.
func history(p *plan.Plan) []ocispec.History {
	var chain []*plan.Stage
	for s := p.Target; s != nil; s = s.Base.Stage {
		chain = append([]*plan.Stage{s}, chain...)
	}
	entries := slices.Clone(p.Target.Config.History)
	for _, s := range chain {
		for _, in := range s.Instructions {
			if in.History != "" {
				entries = append(entries, ocispec.History{
					CreatedBy: in.History, Comment: "buildkit.dockerfile.v0", EmptyLayer: !in.Layer(), Created: p.Epoch,
				})
			}
		}
	}
	return entries
}

// planWriter turns a plan into the text of a graph.
type planWriter struct {
	*graph
	plan *plan.Plan
	// platform is what images that no stage begins with are for.
	platform ocispec.Platform
	states   map[*plan.Stage]string
}

func (w *planWriter) source(s plan.Source, platform ocispec.Platform) string {
	switch {
	case s.Stage != nil:
		return w.stage(s.Stage)
	case s.Image != nil:
		return w.image(s.Image, platform)
	case s.Context != nil:
		return w.context(s.Context)
	default:
		return nothing
	}
}

func (w *planWriter) image(image *plan.Image, platform ocispec.Platform) string {
	if strings.HasPrefix(image.Ref, "layout@") {
		return w.add("layout " + image.Ref)
	}
	if isContext(image.Ref) {
		return w.add("image " + image.Ref)
	}
	layers := len(image.Config.RootFS.DiffIDs) > 0
	for _, entry := range image.Config.History {
		layers = layers || !entry.EmptyLayer
	}
	if !layers {
		return nothing
	}
	return w.add(fmt.Sprintf("image %s %s", image.Ref, platforms.FormatAll(ocispec.Platform{
		OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant,
	})))
}

func (w *planWriter) context(c *plan.NamedContext) string {
	if ref, isGit, _ := dockerfile.GitSource(c.Value); isGit {
		return w.add(gitText(ref.Remote, fragment(ref.Ref, ref.SubDir), false, ref.Checksum, false, ref.FetchByCommit))
	}
	if strings.HasPrefix(c.Value, "http") {
		return w.add(urlText(c.Value, "context", ""))
	}
	return w.add("local " + c.Value)
}

func fragment(ref, dir string) string {
	if dir != "" {
		return ref + ":" + dir
	}
	return ref
}

// stage is the number of a stage's last operation.
func (w *planWriter) stage(s *plan.Stage) string {
	if state, ok := w.states[s]; ok {
		return state
	}
	state := w.source(s.Base, s.Platform)
	for _, in := range s.Instructions {
		switch op := in.Op.(type) {
		case plan.Run:
			state = w.run(op, state)
		case plan.Copy:
			state = w.copy(op, state)
		case plan.Workdir:
			if op.Path != "/" {
				at := int64(-1)
				if w.plan.Epoch != nil {
					at = w.plan.Epoch.UnixNano()
				}
				state = w.add(mkdirText(op.Path, 0o755, true, chown(op.User), at) + " on " + state)
			}
		}
	}
	w.states[s] = state
	return state
}

func (w *planWriter) copy(op plan.Copy, base string) string {
	state := base
	if op.Link {
		state = nothing
	}
	options := copyOptions{owner: chown(op.Chown), mode: op.Chmod, exclude: op.Exclude}
	if n, err := strconv.ParseUint(op.Chmod, 8, 32); err == nil {
		options.mode = fmt.Sprintf("%04o", n)
	}
	for _, source := range op.Sources {
		state = w.add(w.copySource(op, source, options) + " on " + state)
	}
	for _, file := range op.Files {
		made := w.add(fileText("/"+file.Name, 0o644, []byte(file.Data)) + " on " + nothing)
		state = w.add(copyLine(made, "/"+file.Name, op.Dest, options) + " on " + state)
	}
	if op.Link {
		return w.merge(base, state)
	}
	return state
}

// merge of something onto nothing is that itself.
func (w *planWriter) merge(base, top string) string {
	if base == nothing {
		return top
	}
	return w.add("merge " + base + " " + top)
}

func (w *planWriter) copySource(op plan.Copy, source plan.CopySource, options copyOptions) string {
	switch {
	case source.Git != "":
		ref, _, _ := dockerfile.GitSource(source.Git)
		keep := op.KeepGitDir
		if keep == nil {
			keep = ref.KeepGitDir
		}
		checksum := op.Checksum
		if checksum == "" {
			checksum = ref.Checksum
		}
		from := w.add(gitText(ref.Remote, fragment(ref.Ref, ref.SubDir), keep != nil && *keep, checksum,
			ref.Submodules != nil && !*ref.Submodules, ref.FetchByCommit))
		return copyLine(from, "/", op.Dest, options)
	case source.URL != "":
		options.unpack = op.Unpack != nil && *op.Unpack
		from := w.add(urlText(source.URL, source.Name, op.Checksum))
		return copyLine(from, "/"+source.Name, op.Dest, options)
	}
	options.local = true
	options.unpack = op.Add
	if op.Unpack != nil {
		options.unpack = *op.Unpack
	}
	from := w.local(op.From)
	src := path.Join("/", source.Path)
	if op.Parents {
		dir, pattern, _ := strings.Cut("/"+source.Path, "/./")
		src = path.Join("/", dir)
		if pattern == "." {
			pattern = ""
		}
		options.include = []string{pattern}
		options.required = !strings.ContainsAny(source.Path, "*?[\\")
	}
	return copyLine(from, src, op.Dest, options)
}

func (w *planWriter) local(from *plan.Source) string {
	if from == nil {
		return w.add("local context")
	}
	return w.source(*from, w.platform)
}

// chown reads an owner as BuildKit does before it looks anything up.
func chown(spec string) string {
	if spec == "" {
		return ""
	}
	user, group, _ := strings.Cut(spec, ":")
	one := func(name string) string {
		if name == "root" || name == "" {
			return "0"
		}
		if n, err := strconv.ParseInt(name, 10, 32); err == nil {
			return fmt.Sprint(uint32(n))
		}
		return name
	}
	if group == "" {
		return one(user) + ":-"
	}
	return one(user) + ":" + one(group)
}

func (w *planWriter) run(op plan.Run, base string) string {
	env := slices.Clone(op.Env)
	slices.Sort(env)
	var mounts []string
	const pipes = "/dev/pipes"
	early := slices.IndexFunc(op.Mounts, func(m plan.Mount) bool { return m.Target > pipes })
	if early < 0 {
		early = len(op.Mounts)
	}
	mounts = append(mounts, w.mounts(op.Mounts[:early])...)
	for _, file := range op.Files {
		made := w.add(fileText("/"+file.Name, 0o755, []byte(file.Data)) + " on " + nothing)
		mounts = append(mounts, mountLine{kind: "bind", dest: pipes, from: made, source: "/", readonly: true}.String())
	}
	mounts = append(mounts, w.mounts(op.Mounts[early:])...)
	return w.add(execText(op.Args, env, op.Dir, op.User, op.Hostname, op.Network, mounts) + " on " + base)
}

func (w *planWriter) mounts(planned []plan.Mount) []string {
	var mounts []string
	for _, m := range planned {
		if m.Env != "" {
			mounts = append(mounts, fmt.Sprintf("secretenv %s=%s optional=%t", m.Env, m.ID, !m.Required))
		}
		if m.Target != "" {
			mounts = append(mounts, w.mount(m))
		}
	}
	return mounts
}

func (w *planWriter) mount(m plan.Mount) string {
	line := mountLine{kind: m.Type, dest: m.Target, id: m.ID, sharing: m.Sharing, readonly: m.ReadOnly, required: m.Required, size: m.Size}
	switch m.Type {
	case "bind":
		line.from, line.source = w.local(m.From), path.Join("/", m.Source)
	case "cache":
		line.from, line.source = nothing, path.Join("/", m.Source)
		if m.From != nil {
			line.from = w.source(*m.From, w.platform)
		}
		if m.Mode != nil || m.UID != nil || m.GID != nil {
			line.owner = fmt.Sprintf("%d:%d %04o", or(m.UID, 0), or(m.GID, 0), or(m.Mode, 0o755))
		}
	case "secret", "ssh":
		line.readonly = true
		line.owner = fmt.Sprintf("%d:%d %04o", *m.UID, *m.GID, *m.Mode)
	}
	return line.String()
}

func or(n *uint32, other uint32) uint32 {
	if n == nil {
		return other
	}
	return *n
}
