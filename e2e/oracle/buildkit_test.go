// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// Times of made-up sources.
const (
	urlTime    = 1700000000
	commitTime = 1600000000
)

func amd64() ocispec.Platform { return ocispec.Platform{OS: "linux", Architecture: "amd64"} }

// daemon stands in for BuildKit's daemon: it knows the images of a fixture and its ignore file.
type daemon struct {
	gateway.Client
	f *fixture
}

func (d *daemon) BuildOpts() gateway.BuildOpts {
	opts := map[string]string{"target": d.f.target, "filename": "Dockerfile"}
	for key, value := range d.f.args {
		opts["build-arg:"+key] = value
	}
	if _, given := d.f.args["SOURCE_DATE_EPOCH"]; !given && d.f.epoch != "" {
		opts["build-arg:SOURCE_DATE_EPOCH"] = d.f.epoch
	}
	for key, value := range d.f.labels {
		opts["label:"+key] = value
	}
	for key, value := range d.f.contexts {
		if strings.HasPrefix(value, "/") {
			value = "local:" + value
		}
		opts["context:"+key] = value
	}
	if d.f.platform != "" {
		opts["platform"] = d.f.platform
	}
	return gateway.BuildOpts{
		Opts:    opts,
		Workers: []gateway.WorkerInfo{{Platforms: []ocispec.Platform{amd64()}}},
		LLBCaps: pb.Caps.CapSet(pb.Caps.All()),
		Caps:    gatewaypb.Caps.CapSet(gatewaypb.Caps.All()),
	}
}

func (d *daemon) Inputs(context.Context) (map[string]llb.State, error) { return nil, nil }

func (d *daemon) ResolveImageConfig(_ context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	if opt.OCILayoutOpt != nil {
		_, at, _ := strings.Cut(ref, "@")
		config, err := d.f.image(opt.OCILayoutOpt.Store.StoreID+"@"+at, amd64())
		return ref, "", config, err
	}
	platform := amd64()
	if opt.ImageOpt.Platform != nil {
		platform = *opt.ImageOpt.Platform
	}
	config, err := d.f.image(ref, platform)
	return ref, "", config, err
}

func (d *daemon) ResolveSourceMetadata(_ context.Context, op *pb.SourceOp, _ sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	if strings.HasPrefix(op.Identifier, "git://") {
		commit := fmt.Sprintf("tree %040d\nauthor a <a@b> %d +0000\ncommitter a <a@b> %d +0000\n\nx\n", 0, 1, commitTime)
		return &sourceresolver.MetaResponse{Op: op, Git: &sourceresolver.ResolveGitResponse{CommitObject: []byte(commit)}}, nil
	}
	if strings.HasPrefix(op.Identifier, "http") {
		modified := time.Unix(urlTime, 0)
		return &sourceresolver.MetaResponse{Op: op, HTTP: &sourceresolver.ResolveHTTPResponse{LastModified: &modified}}, nil
	}
	return &sourceresolver.MetaResponse{Op: op}, nil
}

// Solve is asked for ignore files only.
func (d *daemon) Solve(_ context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	file := &ignoreFile{}
	for _, raw := range req.Definition.Def {
		var op pb.Op
		if err := op.UnmarshalVT(raw); err != nil {
			return nil, err
		}
		if source := op.GetSource(); source != nil && source.Identifier == "local://context" {
			file.patterns = d.f.ignore
		}
	}
	result := gateway.NewResult()
	result.SetRef(file)
	return result, nil
}

type ignoreFile struct {
	gateway.Reference
	patterns []string
}

func (i *ignoreFile) ReadFile(context.Context, gateway.ReadRequest) ([]byte, error) {
	if len(i.patterns) == 0 {
		return nil, fs.ErrNotExist
	}
	return []byte(strings.Join(i.patterns, "\n")), nil
}

func (i *ignoreFile) StatFile(context.Context, gateway.StatRequest) (*fstypes.Stat, error) {
	return nil, fs.ErrNotExist
}

// theirs is BuildKit's outcome.
func theirs(t *testing.T, f *fixture) (out outcome) {
	t.Helper()
	client, err := dockerui.NewClient(&daemon{f: f})
	if err != nil {
		return outcome{err: err}
	}
	opt := dockerfile2llb.ConvertOpt{Config: client.Config, Client: client, MetaResolver: &daemon{f: f}}
	opt.BuildArgs = maps.Clone(opt.BuildArgs)
	if f.platform != "" {
		platform := client.TargetPlatforms[0]
		opt.TargetPlatform = &platform
	}
	var warnings []string
	opt.Warn = func(rule, description, url, message string, location []parser.Range) {
		warnings = append(warnings, warningText(rule, description, url, message, location))
	}
	defer func() {
		if problem := recover(); problem != nil {
			out = outcome{err: fmt.Errorf("BuildKit panics: %v", problem)}
		}
	}()
	result, err := dockerfile2llb.Dockerfile2LLB(t.Context(), f.dockerfile, opt)
	if err != nil {
		return outcome{err: err}
	}
	config, err := json.MarshalIndent(result.Image, "", " ")
	if err != nil {
		return outcome{err: err}
	}
	def, err := result.State.Marshal(t.Context(), llb.LinuxAmd64)
	if err != nil {
		return outcome{err: err}
	}
	g, err := readLLB(def.ToPB())
	if err != nil {
		return outcome{err: err}
	}
	slices.Sort(warnings)
	return outcome{config: string(config), graph: g, warnings: strings.Join(warnings, "\n")}
}

func warningText(rule, description, url, message string, location []parser.Range) string {
	line := 0
	if len(location) > 0 {
		line = location[0].Start.Line
	}
	return fmt.Sprintf("%4d %s: %s (%s, %s)", line, rule, message, description, url)
}

// llbReader turns marshalled LLB into the text of a graph.
type llbReader struct {
	*graph
	ops map[string]*pb.Op
}

func readLLB(def *pb.Definition) (string, error) {
	r := &llbReader{graph: newGraph(), ops: map[string]*pb.Op{}}
	if len(def.Def) == 0 {
		return "end " + nothing, nil
	}
	var last *pb.Op
	for _, raw := range def.Def {
		op := &pb.Op{}
		if err := op.UnmarshalVT(raw); err != nil {
			return "", err
		}
		r.ops[digest.FromBytes(raw).String()] = op
		last = op
	}
	end := r.input(last.Inputs[0])
	return r.String() + "end " + end, nil
}

func (r *llbReader) input(in *pb.Input) string {
	op := r.ops[in.Digest]
	switch {
	case op == nil:
		return "?"
	case op.GetSource() != nil:
		return r.add(sourceText(op))
	case op.GetExec() != nil:
		return r.exec(op)
	case op.GetFile() != nil:
		return r.file(op, int(in.Index))
	case op.GetMerge() != nil:
		var parts []string
		for _, part := range op.GetMerge().Inputs {
			parts = append(parts, r.at(op, part.Input))
		}
		return r.add("merge " + strings.Join(parts, " "))
	default:
		return "?"
	}
}

func (r *llbReader) at(op *pb.Op, index int64) string {
	if index < 0 {
		return nothing
	}
	return r.input(op.Inputs[index])
}

func sourceText(op *pb.Op) string {
	source := op.GetSource()
	kind, rest, _ := strings.Cut(source.Identifier, "://")
	switch kind {
	case "docker-image":
		p := op.Platform
		if isContext(rest) {
			return "image " + rest
		}
		return fmt.Sprintf("image %s %s", rest, platforms.FormatAll(ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}))
	case "oci-layout":
		_, at, _ := strings.Cut(rest, "@")
		return "layout " + source.Attrs[pb.AttrOCILayoutStoreID] + "@" + at
	case "local":
		return "local " + rest
	case "git":
		_, fragment, _ := strings.Cut(rest, "#")
		return gitText(source.Attrs[pb.AttrFullRemoteURL], fragment, source.Attrs[pb.AttrKeepGitDir] == "true",
			source.Attrs[pb.AttrGitChecksum], source.Attrs[pb.AttrGitSkipSubmodules] == "true", source.Attrs[pb.AttrGitFetchByCommit] == "true")
	default:
		return urlText(source.Identifier, source.Attrs[pb.AttrHTTPFilename], source.Attrs[pb.AttrHTTPChecksum])
	}
}

// isContext knows the image that named contexts lead to. BuildKit does not leave it out when it has no layers.
func isContext(ref string) bool { return strings.HasPrefix(ref, "docker.io/library/other:") }

func gitText(remote, fragment string, keep bool, checksum string, skip, byCommit bool) string {
	return fmt.Sprintf("git %s %q keep=%t checksum=%s skip=%t by-commit=%t", remote, fragment, keep, checksum, skip, byCommit)
}

func urlText(url, name, checksum string) string {
	return fmt.Sprintf("url %s name=%s checksum=%s", url, name, checksum)
}

// file renders the chain of actions that leads to one output.
func (r *llbReader) file(op *pb.Op, output int) string {
	actions := op.GetFile().Actions
	results := make([]string, len(actions))
	resolve := func(index int64) string {
		switch {
		case index < 0:
			return nothing
		case int(index) < len(op.Inputs):
			return r.input(op.Inputs[index])
		default:
			return results[int(index)-len(op.Inputs)]
		}
	}
	found := "?"
	for i, action := range actions {
		base := resolve(action.Input)
		text := "?"
		switch {
		case action.GetCopy() != nil:
			text = copyText(action.GetCopy(), resolve(action.SecondaryInput))
		case action.GetMkdir() != nil:
			m := action.GetMkdir()
			text = mkdirText(m.Path, m.Mode, m.MakeParents, ownerText(m.Owner), m.Timestamp)
		case action.GetMkfile() != nil:
			m := action.GetMkfile()
			text = fileText(m.Path, m.Mode, m.Data)
		}
		results[i] = r.add(text + " on " + base)
		if int(action.Output) == output {
			found = results[i]
		}
	}
	return found
}

func fileText(name string, mode int32, data []byte) string {
	return fmt.Sprintf("mkfile %s %04o %q", name, mode, data)
}

func mkdirText(dir string, mode int32, parents bool, owner string, at int64) string {
	return fmt.Sprintf("mkdir %s %04o parents=%t owner=%s time=%d", dir, mode, parents, owner, at)
}

func copyText(c *pb.FileActionCopy, from string) string {
	mode := c.ModeStr
	if mode == "" && c.Mode >= 0 {
		mode = fmt.Sprintf("%04o", c.Mode)
	}
	return copyLine(from, c.Src, c.Dest, copyOptions{
		owner: ownerText(c.Owner), mode: mode, local: c.FollowSymlink && c.DirCopyContents && c.AllowWildcard && c.AllowEmptyWildcard,
		unpack: c.AttemptUnpackDockerCompatibility, include: c.IncludePatterns, exclude: c.ExcludePatterns, required: len(c.RequiredPaths) > 0,
	})
}

type copyOptions struct {
	owner, mode      string
	local, unpack    bool
	include, exclude []string
	required         bool
}

func copyLine(from, src, dest string, o copyOptions) string {
	return fmt.Sprintf("copy %s:%s -> %s owner=%s mode=%s local=%t unpack=%t include=%q exclude=%q required=%t",
		from, src, dest, o.owner, o.mode, o.local, o.unpack, o.include, o.exclude, o.required)
}

func ownerText(owner *pb.ChownOpt) string {
	if owner == nil {
		return ""
	}
	one := func(u *pb.UserOpt) string {
		switch {
		case u == nil:
			return "-"
		case u.GetByName() != nil:
			return u.GetByName().Name
		default:
			return fmt.Sprint(u.GetByID())
		}
	}
	return one(owner.User) + ":" + one(owner.Group)
}

func (r *llbReader) exec(op *pb.Op) string {
	e := op.GetExec()
	env := slices.Clone(e.Meta.Env)
	if p := e.Meta.ProxyEnv; p != nil {
		env = withProxies(env, map[string]string{
			"HTTP_PROXY": p.HttpProxy, "HTTPS_PROXY": p.HttpsProxy, "FTP_PROXY": p.FtpProxy, "NO_PROXY": p.NoProxy, "ALL_PROXY": p.AllProxy,
		})
	}
	for i, pair := range env {
		if socket, ok := strings.CutPrefix(pair, "SSH_AUTH_SOCK="); ok {
			env[i] = "SSH_AUTH_SOCK=" + path.Clean("/"+socket)
		}
	}
	slices.Sort(env)
	root := nothing
	var mounts []string
	for _, m := range e.Mounts {
		if m.Dest == "/" {
			root = r.at(op, m.Input)
		}
	}
	sorted := slices.Clone(e.Mounts)
	slices.SortStableFunc(sorted, func(a, b *pb.Mount) int { return strings.Compare(path.Clean(a.Dest), path.Clean(b.Dest)) })
	for _, m := range sorted {
		if m.Dest != "/" {
			mounts = append(mounts, r.mount(op, m))
		}
	}
	for _, s := range e.Secretenv {
		if s.Name == "" {
			continue // a variable without a name is none
		}
		mounts = append(mounts, fmt.Sprintf("secretenv %s=%s optional=%t", s.Name, s.ID, s.Optional))
	}
	return r.add(execText(e.Meta.Args, env, path.Clean(e.Meta.Cwd), e.Meta.User, e.Meta.Hostname, strings.ToLower(e.Network.String()), mounts) + " on " + root)
}

func execText(args, env []string, dir, user, hostname, network string, mounts []string) string {
	if network == "unset" {
		network = "default"
	}
	slices.Sort(mounts)
	return fmt.Sprintf("exec %q\n   env %q\n   dir=%s user=%s hostname=%s network=%s\n   %s", args, env, dir, user, hostname, network, strings.Join(mounts, "\n   "))
}

func withProxies(env []string, proxies map[string]string) []string {
	for name, value := range proxies {
		for _, key := range []string{name, strings.ToLower(name)} {
			if value == "" {
				continue
			}
			env = slices.DeleteFunc(env, func(pair string) bool { return strings.HasPrefix(pair, key+"=") })
			env = append(env, key+"="+value)
		}
	}
	return env
}

func (r *llbReader) mount(op *pb.Op, m *pb.Mount) string {
	line := mountLine{kind: strings.ToLower(m.MountType.String()), dest: path.Clean(m.Dest), readonly: m.Readonly}
	switch {
	case m.MountType == pb.MountType_BIND:
		line.from, line.source = r.at(op, m.Input), path.Join("/", m.Selector)
	case m.CacheOpt != nil:
		line.id, line.sharing = m.CacheOpt.ID, strings.ToLower(m.CacheOpt.Sharing.String())
		if line.owner = r.cacheOwner(op, m); line.owner != "" {
			line.from, line.source = nothing, "/"
		} else {
			line.from, line.source = r.at(op, m.Input), path.Join("/", m.Selector)
		}
	case m.TmpfsOpt != nil:
		line.size = m.TmpfsOpt.Size
		line.readonly = m.Readonly
	case m.SecretOpt != nil:
		o := m.SecretOpt
		line.dest = path.Join("/", line.dest)
		line.id, line.required, line.readonly = o.ID, !o.Optional, true
		line.owner = fmt.Sprintf("%d:%d %04o", o.Uid, o.Gid, o.Mode)
	case m.SSHOpt != nil:
		o := m.SSHOpt
		line.dest = path.Join("/", line.dest)
		line.id, line.required, line.readonly = cmp.Or(o.ID, "default"), !o.Optional, true
		line.owner = fmt.Sprintf("%d:%d %04o", o.Uid, o.Gid, o.Mode)
	}
	return line.String()
}

// cacheOwner is the owner and mode of a cache that begins with a directory made for it.
func (r *llbReader) cacheOwner(op *pb.Op, m *pb.Mount) string {
	if m.Input < 0 || m.Selector != "/cache" {
		return ""
	}
	made := r.ops[op.Inputs[m.Input].Digest].GetFile()
	if made == nil || len(made.Actions) != 1 || made.Actions[0].GetMkdir() == nil {
		return ""
	}
	dir := made.Actions[0].GetMkdir()
	return fmt.Sprintf("%s %04o", ownerText(dir.Owner), dir.Mode)
}

type mountLine struct {
	kind, dest, from, source, id, sharing, owner string
	readonly, required                           bool
	size                                         int64
}

func (m mountLine) String() string {
	return fmt.Sprintf("%s %s from=%s source=%s id=%s sharing=%s owner=%s ro=%t required=%t size=%d",
		m.kind, m.dest, m.from, m.source, m.id, m.sharing, m.owner, m.readonly, m.required, m.size)
}
