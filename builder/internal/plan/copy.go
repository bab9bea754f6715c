// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/opencontainers/go-digest"
	mode "github.com/tonistiigi/dchapes-mode"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

// transfer is what COPY and ADD have in common while they are planned.
type transfer struct {
	// stage is what --from says, for people.
	name, stage  string
	from         instructions.SourcesAndDest
	chown, chmod string
	// op is the result.
	op Copy
}

func (s *stageState) copy(c *instructions.CopyCommand, in *Instruction) error {
	t := &transfer{name: "COPY", stage: c.From, from: c.SourcesAndDest, chown: c.Chown, chmod: c.Chmod}
	t.op = Copy{Link: c.Link, Parents: c.Parents, Exclude: c.ExcludePatterns}
	return s.transfer(t, in)
}

func (s *stageState) add(c *instructions.AddCommand, in *Instruction) error {
	t := &transfer{name: "ADD", from: c.SourcesAndDest, chown: c.Chown, chmod: c.Chmod}
	t.op = Copy{Add: true, Link: c.Link, Exclude: c.ExcludePatterns, KeepGitDir: c.KeepGitDir, Unpack: c.Unpack}
	var err error
	if t.op.Checksum, err = s.expand(c.Checksum); err != nil {
		return err
	}
	return s.transfer(t, in)
}

// transfer plans a COPY or ADD and writes the history entry.
func (s *stageState) transfer(t *transfer, in *Instruction) error {
	sources, dest, err := s.expandTransfer(t)
	if err != nil {
		return err
	}
	if s.at.from != nil {
		if t.op.From, err = s.copySource(t.stage); err != nil {
			return err
		}
	}
	if err := t.check(sources); err != nil {
		return err
	}
	if err := s.sources(t, sources); err != nil {
		return err
	}
	op := &t.op
	// BuildKit has --chmod done by the copy itself, which then cannot be a layer of its own.
	op.Link = op.Link && op.Chmod == ""
	op.Dest = joinDest(s.dir(), dest)
	in.History = t.history(sources, dest)
	in.Op = *op
	return nil
}

// expandTransfer expands the words in the order in which BuildKit does.
func (s *stageState) expandTransfer(t *transfer) (sources []string, dest string, err error) {
	op := &t.op
	if op.Chown, err = s.expand(t.chown); err != nil {
		return nil, "", err
	}
	if op.Chmod, err = s.expand(t.chmod); err != nil {
		return nil, "", err
	}
	if sources, err = s.expandAll(t.from.SourcePaths); err != nil {
		return nil, "", err
	}
	if dest, err = s.expand(t.from.DestPath); err != nil {
		return nil, "", err
	}
	op.Files, err = s.inlineFiles(t.from.SourceContents)
	return sources, dest, err
}

// check looks at the flags.
func (t *transfer) check(sources []string) error {
	op := &t.op
	if op.Link && ownerByName(op.Chown) {
		return fmt.Errorf("--chown=%s: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead", op.Chown)
	}
	if err := checkChmod(op.Chmod); err != nil {
		return err
	}
	if err := checkExclude(op.Exclude); err != nil {
		return err
	}
	if op.Checksum == "" {
		return nil
	}
	if len(sources) != 1 {
		return errors.New("checksum can't be specified for multiple sources")
	}
	if _, isGit, _ := dockerfile.GitSource(sources[0]); !isGit && !dockerfile.HTTPSource(sources[0]) {
		return errors.New("checksum requires HTTP(S) or Git sources")
	}
	return nil
}

// ownerByName tells whether a --chown needs the files that name users and groups.
func ownerByName(chown string) bool {
	if chown == "" {
		return false
	}
	user, group, hasGroup := strings.Cut(chown, ":")
	return user != "" && !isID(user) || hasGroup && group != "" && !isID(group)
}

func isID(text string) bool {
	_, err := strconv.ParseInt(text, 10, 32)
	return err == nil || text == "root"
}

func checkExclude(patterns []string) error {
	for _, pattern := range patterns {
		if strings.TrimSpace(pattern) == "" {
			continue // means nothing to BuildKit either
		}
		if _, err := dockerfile.NewMatcher([]string{pattern}); err != nil {
			return fmt.Errorf("--exclude: %w", err)
		}
	}
	return nil
}

func (t *transfer) history(sources []string, dest string) string {
	words := []string{t.name}
	if t.op.Parents {
		words = append(words, "--parents")
	}
	if t.op.Chown != "" {
		words = append(words, "--chown="+t.op.Chown)
	}
	if t.op.Chmod != "" {
		words = append(words, "--chmod="+t.op.Chmod)
	}
	words = append(words, sources...)
	for _, file := range t.op.Files {
		words = append(words, "<<"+file.Name)
	}
	return strings.Join(append(words, dest), " ") + " # buildkit"
}

// sources tells paths, URLs and repositories apart.
func (s *stageState) sources(t *transfer, sources []string) error {
	checksum, keepGitDir := t.op.Checksum, t.op.KeepGitDir
	for _, source := range sources {
		ref, isGit, err := dockerfile.GitSource(source)
		switch {
		case err != nil:
			return err
		case isGit && !t.op.Add:
			return errors.New("source can't be a git ref for COPY")
		case isGit:
			if keepGitDir != nil && ref.KeepGitDir != nil && *keepGitDir != *ref.KeepGitDir {
				return errors.New("inconsistent keep-git-dir configuration")
			}
			if checksum != "" && ref.Checksum != "" && checksum != ref.Checksum {
				return fmt.Errorf("checksum mismatch %q != %q", checksum, ref.Checksum)
			}
			checksum = cmp.Or(ref.Checksum, checksum)
			keepGitDir = cmp.Or(ref.KeepGitDir, keepGitDir)
			t.op.Sources = append(t.op.Sources, CopySource{Git: source})
		case dockerfile.HTTPSource(source):
			if !t.op.Add {
				return errors.New("source can't be a URL for COPY")
			}
			if checksum != "" {
				if _, err := digest.Parse(checksum); err != nil {
					return err
				}
			}
			t.op.Sources = append(t.op.Sources, CopySource{URL: source, Name: urlFile(source)})
		default:
			s.warnIgnored(t, source)
			t.op.Sources = append(t.op.Sources, CopySource{Path: localPath(source, t.op.Parents)})
		}
	}
	return nil
}

// urlFile is what the file behind a URL is called.
func urlFile(address string) string {
	if u, err := url.Parse(address); err == nil {
		if base := path.Base(u.Path); base != "." && base != "/" && base != ".." && !strings.ContainsRune(base, 0) {
			return base
		}
	}
	return "__unnamed__"
}

// localPath cleans a path of a source. With --parents the first "/./" separates
// where to look from what to keep of the path.
func localPath(source string, parents bool) string {
	if !parents {
		return cleanSource(source)
	}
	base, pattern, pivot := strings.Cut(source, "/./")
	if !pivot {
		base, pattern = "", source
	}
	if base = cleanSource(base); base == "." {
		return "./" + cleanSource(pattern)
	}
	return base + "/./" + cleanSource(pattern)
}

// copySource finds what --from names. A stage must stand above the one that
// copies from it; an ONBUILD trigger may even name the stage it fires in.
func (s *stageState) copySource(from string) (*Source, error) {
	source := s.at.from
	switch {
	case source == s.node:
		return nil, fmt.Errorf("circular dependency detected on stage: %s", s.node.name)
	case source.index >= 0 && source.stage == nil:
		return nil, fmt.Errorf("cannot copy from stage %q, it needs to be defined before current stage %q", from, s.node.name)
	default:
		read := source.source()
		return &read, nil
	}
}

func (s *stageState) inlineFiles(contents []instructions.SourceContent) ([]Inline, error) {
	var files []Inline
	for _, content := range contents {
		if err := checkFileName(content.Path); err != nil {
			return nil, err
		}
		data := content.Data
		if content.Expand {
			expanded, err := s.p.expander.Document(data, s.env)
			if err != nil {
				return nil, err
			}
			s.warnUndefined(expanded.Undefined)
			data = expanded.Text
		}
		files = append(files, Inline{Name: content.Path, Data: data})
	}
	return files, nil
}

// checkChmod accepts octal modes and the symbolic ones of chmod(1).
func checkChmod(text string) error {
	if text == "" {
		return nil
	}
	notOctal := fmt.Errorf("invalid chmod parameter: '%v'. it should be octal string and between 0 and 07777", text)
	if bits, err := strconv.ParseUint(text, 8, 32); err == nil {
		if bits > 0o7777 {
			return notOctal
		}
		return nil
	}
	_, err := mode.Parse(text)
	var number *strconv.NumError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &number):
		return notOctal
	default:
		return fmt.Errorf("invalid chmod parameter: '%v': %w", text, err)
	}
}

// joinDest makes a destination absolute and clean, and keeps the ending that
// says it is a directory.
func joinDest(dir, dest string) string {
	if dest == "" || dest == "." {
		dest = "./"
	}
	joined := path.Clean(dest)
	if !path.IsAbs(dest) {
		joined = path.Join("/", dir, dest)
	}
	switch {
	case strings.HasSuffix(dest, "/") && joined != "/":
		return joined + "/"
	case strings.HasSuffix(dest, "/."):
		return strings.TrimSuffix(joined, "/") + "/."
	default:
		return joined
	}
}

// cleanSource clamps a source to the root it is read from.
func cleanSource(source string) string {
	cleaned := strings.TrimPrefix(path.Join("/", source), "/")
	if cleaned == "" {
		return "."
	}
	return cleaned
}
