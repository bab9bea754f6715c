// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

// Report is what the build checks say of a Dockerfile. Its JSON is that of BuildKit's lint request.
type Report struct {
	// Warnings are the checks that fired, in order of line.
	Warnings []Warning
	// Err is why a build would fail, nil if nothing was found.
	Err error

	name   string
	source []byte
}

// Check does what New does but for every stage if no target is given, and reports rather than fails. The
// error is the Report's Err, for a caller that tells a mistake in the
// Dockerfile from a registry that cannot be reached; the Report is there in any case.
func Check(ctx context.Context, file *dockerfile.File, req Request) (*Report, error) {
	report := &Report{name: file.Name, source: file.Source, Warnings: fromFile(file.Warnings)}
	p, err := newPlanner(file, req)
	if err == nil {
		err = p.check(ctx)
		report.Warnings = p.sortedWarnings()
	}
	report.Err = err
	return report, err
}

// CheckSource is Check for a Dockerfile that may not even parse.
func CheckSource(ctx context.Context, name string, source []byte, req Request) (*Report, error) {
	file, err := dockerfile.Parse(name, source)
	if err != nil {
		if options, given := req.BuildArgs["BUILDKIT_DOCKERFILE_CHECK"]; given && len(source) <= dockerfile.MaxSize {
			if other, _ := file.WithChecks(options); other != nil { // it fails as Parse has failed
				file = other
			}
		}
		return &Report{name: name, source: source, Warnings: fromFile(file.Warnings), Err: err}, err
	}
	return Check(ctx, file, req)
}

func (p *planner) check(ctx context.Context) error {
	target, err := p.prepare(ctx)
	if err != nil {
		return err
	}
	var others []*node
	if p.req.Target == "" {
		others = p.nodes
	}
	reached, err := p.settle(ctx, target, others)
	if err != nil {
		return err
	}
	if _, err := p.planStages(reached); err != nil {
		return err
	}
	return p.lintError()
}

func fromFile(warnings []dockerfile.Warning) []Warning {
	out := make([]Warning, 0, len(warnings))
	for _, w := range warnings {
		out = append(out, Warning(w))
	}
	return out
}

// String is the report as "docker build --check" shows it.
func (r *Report) String() string {
	var b strings.Builder
	switch n := len(r.Warnings); {
	case n == 1:
		b.WriteString("Check complete, 1 warning has been found!\n")
	case n > 1:
		fmt.Fprintf(&b, "Check complete, %d warnings have been found!\n", n)
	case r.Err == nil:
		b.WriteString("Check complete, no warnings found.\n")
	}
	file := &dockerfile.File{Name: r.name, Source: r.source}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "\nWARNING: %s", w.Rule)
		if w.URL != "" {
			fmt.Fprintf(&b, " - %s", w.URL)
		}
		fmt.Fprintf(&b, "\n%s\n%s", w.Message, excerpt(file.Wrap(w.Location, errors.New(w.Message))))
	}
	if r.Err != nil {
		fmt.Fprintf(&b, "%s\n%s", r.message(), excerpt(r.Err))
	}
	return b.String()
}

func excerpt(err error) string {
	var located *dockerfile.Error
	if !errors.As(err, &located) {
		return ""
	}
	return located.Excerpt()
}

// message is the reason without the place, which is given beside it.
func (r *Report) message() string {
	var located *dockerfile.Error
	if errors.As(r.Err, &located) {
		return located.Err.Error()
	}
	return r.Err.Error()
}

// BuildKit's form of a report. Its places are protocol buffers, which leave out zeros.
type (
	reportJSON struct {
		Warnings []warningJSON `json:"warnings"`
		Sources  []sourceJSON  `json:"sources"`
		Error    *errorJSON    `json:"buildError,omitempty"`
	}
	warningJSON struct {
		Rule        string        `json:"ruleName"`
		Description string        `json:"description,omitempty"`
		URL         string        `json:"url,omitempty"`
		Detail      string        `json:"detail,omitempty"`
		Location    *locationJSON `json:"location,omitempty"`
	}
	sourceJSON struct {
		Filename string `json:"filename,omitempty"`
		Data     []byte `json:"data,omitempty"`
		Language string `json:"language,omitempty"`
	}
	errorJSON struct {
		Message  string       `json:"message"`
		Location locationJSON `json:"location"`
	}
	locationJSON struct {
		Source int         `json:"sourceIndex,omitempty"`
		Ranges []rangeJSON `json:"ranges,omitempty"`
	}
	rangeJSON struct {
		Start positionJSON `json:"start"`
		End   positionJSON `json:"end"`
	}
	positionJSON struct {
		Line      int `json:"line,omitempty"`
		Character int `json:"character,omitempty"`
	}
)

// MarshalJSON gives the form of BuildKit's lint request.
func (r *Report) MarshalJSON() ([]byte, error) {
	out := reportJSON{Sources: []sourceJSON{{Filename: r.name, Data: r.source, Language: "Dockerfile"}}}
	for _, w := range r.Warnings {
		location := locationOf(w.Location)
		out.Warnings = append(out.Warnings, warningJSON{
			Rule: w.Rule, Description: w.Description, URL: w.URL, Detail: w.Message, Location: &location,
		})
	}
	if r.Err != nil {
		out.Error = &errorJSON{Message: r.message()}
		var located *dockerfile.Error
		if errors.As(r.Err, &located) {
			out.Error.Location = locationOf(located.Location)
		}
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(out)
	return bytes.TrimSpace(b.Bytes()), err
}

func locationOf(ranges []parser.Range) locationJSON {
	var location locationJSON
	for _, r := range ranges {
		location.Ranges = append(location.Ranges, rangeJSON{
			Start: positionJSON{r.Start.Line, r.Start.Character}, End: positionJSON{r.End.Line, r.End.Character},
		})
	}
	return location
}
