// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	mode "github.com/tonistiigi/dchapes-mode"
)

// copyFlags are what COPY and ADD have in common.
type copyFlags struct {
	name, chown, chmod string
}

func (s *stageState) copy(c *instructions.CopyCommand, in *Instruction) error {
	switch {
	case c.Link:
		return errors.New("COPY --link is not supported yet")
	case c.Parents:
		return errors.New("COPY --parents is not supported yet")
	case len(c.ExcludePatterns) > 0:
		return errors.New("COPY --exclude is not supported yet")
	}
	op, err := s.transfer(c.SourcesAndDest, copyFlags{name: "COPY", chown: c.Chown, chmod: c.Chmod}, in)
	if err != nil {
		return err
	}
	if op.From, err = s.copySource(c.From); err != nil {
		return err
	}
	in.Op = *op
	return nil
}

func (s *stageState) add(c *instructions.AddCommand, in *Instruction) error {
	switch {
	case c.Link:
		return errors.New("ADD --link is not supported yet")
	case len(c.ExcludePatterns) > 0:
		return errors.New("ADD --exclude is not supported yet")
	case c.Checksum != "":
		return errors.New("ADD --checksum is not supported yet")
	case c.KeepGitDir != nil && *c.KeepGitDir:
		return errors.New("ADD --keep-git-dir is not supported yet")
	case c.Unpack != nil:
		return errors.New("ADD --unpack is not supported yet")
	}
	op, err := s.transfer(c.SourcesAndDest, copyFlags{name: "ADD", chown: c.Chown, chmod: c.Chmod}, in)
	if err != nil {
		return err
	}
	op.Add = true
	in.Op = *op
	return nil
}

// transfer plans what COPY and ADD share and writes the history entry.
func (s *stageState) transfer(what instructions.SourcesAndDest, flags copyFlags, in *Instruction) (*Copy, error) {
	op := &Copy{}
	history := []string{flags.name}
	var err error
	if op.Chown, err = s.expand(flags.chown); err != nil {
		return nil, err
	}
	if op.Chmod, err = s.expand(flags.chmod); err != nil {
		return nil, err
	}
	if err := checkChmod(op.Chmod); err != nil {
		return nil, err
	}
	if op.Chown != "" {
		history = append(history, "--chown="+op.Chown)
	}
	if op.Chmod != "" {
		history = append(history, "--chmod="+op.Chmod)
	}
	sources, err := s.expandAll(what.SourcePaths)
	if err != nil {
		return nil, err
	}
	dest, err := s.expand(what.DestPath)
	if err != nil {
		return nil, err
	}
	for _, source := range sources {
		if err := checkLocal(source, flags.name); err != nil {
			return nil, err
		}
		op.Sources = append(op.Sources, CopySource{Path: cleanSource(source)})
		history = append(history, source)
	}
	if op.Files, err = s.inlineFiles(what.SourceContents); err != nil {
		return nil, err
	}
	for _, file := range op.Files {
		history = append(history, "<<"+file.Name)
	}
	op.Dest = joinDest(s.dir(), dest)
	in.History = strings.Join(append(history, dest), " ") + " # buildkit"
	return op, nil
}

// copySource finds what --from names. A stage must stand above the one that
// copies from it; an ONBUILD trigger may even name the stage it fires in.
func (s *stageState) copySource(from string) (*Source, error) {
	source := s.at.from
	switch {
	case source == nil:
		return nil, nil
	case source == s.node:
		return nil, fmt.Errorf("circular dependency detected on stage: %s", s.node.name)
	case source.index < 0 && source.ref == "":
		return &Source{}, nil
	case source.index < 0:
		return &Source{Image: source.image}, nil
	case source.stage == nil:
		return nil, fmt.Errorf("cannot copy from stage %q, it needs to be defined before current stage %q", from, s.node.name)
	default:
		return &Source{Stage: source.stage}, nil
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

var (
	schemeForm = regexp.MustCompile(`^[a-zA-Z0-9]+://`)
	// scpForm is git's user@host:path.
	scpForm = regexp.MustCompile(`^[a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:`)
)

// checkLocal refuses sources that have to be fetched. COPY never takes them.
func checkLocal(source, name string) error {
	kind, long := remoteKind(source)
	switch {
	case kind == "":
		return nil
	case name == "COPY":
		return fmt.Errorf("source can't be a %s for COPY", kind)
	default:
		// The address stays out of the message: it may hold a password.
		return fmt.Errorf("ADD of a %s is not supported yet", long)
	}
}

// remoteKind tells git and HTTP sources from paths and names them for COPY's
// and for ADD's message. An HTTP address is git's
// only if its path ends in ".git"; "github.com/x/y" is a path.
func remoteKind(source string) (kind, long string) {
	scheme := strings.ToLower(strings.TrimSuffix(schemeForm.FindString(source), "://"))
	switch scheme {
	case "http", "https":
		address, _, _ := strings.Cut(source, "#")
		address, _, _ = strings.Cut(address, "?")
		if strings.HasSuffix(address, ".git") {
			return "git ref", "git repository"
		}
		return "URL", "URL"
	case "git", "ssh":
		return "git ref", "git repository"
	case "":
		if scpForm.MatchString(source) {
			return "git ref", "git repository"
		}
	}
	return "", ""
}
