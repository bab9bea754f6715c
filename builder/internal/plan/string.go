// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

// String is the plan for people, and the golden form of tests: stages in the
// order they are made, each instruction with what it will do, the
// configuration each stage ends with, and the build checks that fired.
func (p *Plan) String() string {
	var b strings.Builder
	for _, stage := range p.Stages {
		stage.print(&b)
	}
	if p.Target != nil {
		fmt.Fprintf(&b, "target %s\n", p.Target.Name)
	}
	if p.Epoch != nil {
		fmt.Fprintf(&b, "epoch %d\n", p.Epoch.Unix())
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "warning %s: %s: %s\n", lines(w.Location), w.Rule, w.Message)
	}
	return b.String()
}

func (s *Stage) print(b *strings.Builder) {
	fmt.Fprintf(b, "stage %d %s (%s, %s)\n", s.Index, s.Name, platforms.FormatAll(s.Platform), lines(s.Location))
	fmt.Fprintf(b, "  from %s\n", s.Base.describe(s.BaseName))
	for _, in := range s.Instructions {
		in.print(b, s.Total)
	}
	var config bytes.Buffer
	encoder := json.NewEncoder(&config)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("    ", "  ")
	if err := encoder.Encode(s.Config); err != nil {
		fmt.Fprintf(&config, "cannot be shown: %v\n", err)
	}
	fmt.Fprintf(b, "  config %s", config.String())
}

// describe names a source; name is what the Dockerfile calls it.
func (s Source) describe(name string) string {
	switch {
	case s.Stage != nil:
		return "stage " + s.Stage.Name
	case s.Image != nil && name != "":
		return fmt.Sprintf("image %s (%s)", s.Image.Ref, name)
	case s.Image != nil:
		return "image " + s.Image.Ref
	case s.Context != nil:
		return fmt.Sprintf("context %s (%s)", s.Context.Value, s.Context.Name)
	default:
		return scratch
	}
}

func (i *Instruction) print(b *strings.Builder, total int) {
	b.WriteString("  ")
	if i.Number > 0 {
		fmt.Fprintf(b, "[%d/%d] ", i.Number, total)
	}
	if i.OnBuild {
		b.WriteString("ONBUILD ")
	}
	fmt.Fprintf(b, "%s (%s)\n", i.Text, lines(i.Location))
	switch op := i.Op.(type) {
	case Run:
		op.print(b)
	case Copy:
		op.print(b)
	case Workdir:
		field(b, "workdir", "%q", op.Path)
		optional(b, "user", op.User)
	}
	optional(b, "history", i.History)
	optional(b, "author", i.Author)
}

func (r Run) print(b *strings.Builder) {
	field(b, "run", "%q", r.Args)
	for _, pair := range r.Env {
		field(b, "env", "%q", pair)
	}
	field(b, "dir", "%q", r.Dir)
	optional(b, "user", r.User)
	if r.Network != "default" {
		field(b, "network", "%s", r.Network)
	}
	optional(b, "hostname", r.Hostname)
	for _, mount := range r.Mounts {
		field(b, "mount", "%s", mount.describe())
	}
	for _, file := range r.Files {
		field(b, "file", "%q %q", file.Name, file.Data)
	}
}

func (m Mount) describe() string {
	text := m.Type
	add := func(name string, value any) { text += fmt.Sprintf(" %s=%v", name, value) }
	if m.Target != "" {
		add("target", m.Target)
	}
	if m.From != nil {
		add("from", "("+m.From.describe("")+")")
	}
	if m.Source != "" {
		add("source", m.Source)
	}
	if m.ID != "" {
		add("id", m.ID)
	}
	if m.Env != "" {
		add("env", m.Env)
	}
	if m.Sharing != "" {
		add("sharing", m.Sharing)
	}
	if m.Mode != nil {
		add("mode", fmt.Sprintf("%04o", *m.Mode))
	}
	if m.UID != nil {
		add("uid", *m.UID)
	}
	if m.GID != nil {
		add("gid", *m.GID)
	}
	if m.Size != 0 {
		add("size", m.Size)
	}
	if m.ReadOnly {
		text += " ro"
	}
	if m.Required {
		text += " required"
	}
	return text
}

func (c Copy) print(b *strings.Builder) {
	verb := "copy"
	if c.Add {
		verb = "add"
	}
	sources := make([]string, 0, len(c.Sources))
	for _, source := range c.Sources {
		sources = append(sources, source.Path+source.URL+source.Git)
	}
	field(b, verb, "%q -> %q", sources, c.Dest)
	if c.From != nil {
		field(b, "from", "%s", c.From.describe(""))
	}
	for _, file := range c.Files {
		field(b, "file", "%q %q", file.Name, file.Data)
	}
	optional(b, "chown", c.Chown)
	optional(b, "chmod", c.Chmod)
	for _, pattern := range c.Exclude {
		field(b, "exclude", "%q", pattern)
	}
	optional(b, "checksum", c.Checksum)
	mark(b, "link", c.Link)
	mark(b, "parents", c.Parents)
	if c.KeepGitDir != nil {
		field(b, "keep-git-dir", "%t", *c.KeepGitDir)
	}
	if c.Unpack != nil {
		field(b, "unpack", "%t", *c.Unpack)
	}
}

func mark(b *strings.Builder, name string, set bool) {
	if set {
		fmt.Fprintf(b, "      %s\n", name)
	}
}

func field(b *strings.Builder, name, format string, args ...any) {
	fmt.Fprintf(b, "      %s %s\n", name, fmt.Sprintf(format, args...))
}

func optional(b *strings.Builder, name, value string) {
	if value != "" {
		field(b, name, "%q", value)
	}
}

func lines(location []parser.Range) string {
	first, last, ok := dockerfile.Lines(location)
	switch {
	case !ok:
		return "line ?"
	case first == last:
		return fmt.Sprintf("line %d", first)
	default:
		return fmt.Sprintf("lines %d-%d", first, last)
	}
}
