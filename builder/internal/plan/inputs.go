// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"strconv"
	"strings"
)

// Input is one thing that decides what an instruction makes. Names are what people read when it has changed.
type Input struct{ Name, Value string }

// Inputs are everything that the Dockerfile, its arguments and its variables say of what an instruction does. What
// is in the files that it reads, and what it is done to, the caller knows. Left out is what must not
// decide whether a cached layer is right: proxies, secrets, the sharing of caches. nil for an
// instruction that makes no layer.
func (i *Instruction) Inputs() []Input {
	switch op := i.Op.(type) {
	case Run:
		return op.inputs()
	case Copy:
		return op.inputs()
	case Workdir:
		return []Input{{"instruction", "WORKDIR"}, {"path", op.Path}, {"user", op.User}}
	default:
		return nil
	}
}

func (r Run) inputs() []Input {
	in := []Input{{"instruction", "RUN"}, {"command", list(r.Args)}}
	for _, kv := range r.KeyEnv {
		name, value, _ := strings.Cut(kv, "=")
		in = append(in, Input{"variable " + name, value})
	}
	in = append(in,
		Input{"user", r.User}, Input{"working directory", r.Dir}, Input{"network", r.Network},
		Input{"security", strings.TrimSuffix(r.Security, "sandbox")}, Input{"host name", r.Hostname})
	for _, f := range r.Files {
		in = append(in, Input{"script " + f.Name, f.Data})
	}
	for n, m := range r.Mounts {
		in = append(in, Input{fmt.Sprintf("mount %d", n+1), m.input()})
	}
	return in
}

// input is what RUN can see of a mount. A cache's contents, a secret and an agent are nothing that a layer may depend on.
func (m Mount) input() string {
	parts := []string{m.Type, m.Target, strconv.FormatBool(m.ReadOnly), m.Env}
	switch m.Type {
	case "bind":
		parts = append(parts, m.Source)
	case "secret", "ssh":
		parts = append(parts, m.ID)
	}
	for _, n := range []*uint32{m.Mode, m.UID, m.GID} {
		if n == nil {
			parts = append(parts, "-")
			continue
		}
		parts = append(parts, strconv.FormatUint(uint64(*n), 10))
	}
	return list(parts)
}

func (c Copy) inputs() []Input {
	verb := "COPY"
	if c.Add {
		verb = "ADD"
	}
	in := []Input{
		{"instruction", verb},
		{"destination", c.Dest},
		{"--chown", c.Chown},
		{"--chmod", c.Chmod},
		{"--link", strconv.FormatBool(c.Link)},
		{"--parents", strconv.FormatBool(c.Parents)},
		{"--exclude", list(c.Exclude)},
		{"--checksum", c.Checksum},
		{"--keep-git-dir", tristate(c.KeepGitDir)},
		{"--unpack", tristate(c.Unpack)},
	}
	var names []string
	for _, s := range c.Sources {
		// What a path leads to is in the digest of the files; the path itself need not be.
		names = append(names, s.URL, s.Name, s.Git)
	}
	in = append(in, Input{"addresses", list(names)})
	for _, f := range c.Files {
		in = append(in, Input{"file " + f.Name, f.Data})
	}
	return in
}

func tristate(b *bool) string {
	if b == nil {
		return ""
	}
	return strconv.FormatBool(*b)
}

// list joins strings so that no two lists look alike.
func list(items []string) string {
	var b strings.Builder
	for _, s := range items {
		b.WriteString(strconv.Itoa(len(s)) + ":" + s)
	}
	return b.String()
}
