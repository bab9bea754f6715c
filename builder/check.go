// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/kaniko-go/kaniko-go/builder/internal/buildcontext"
	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
)

// CheckReport is what build checks found in a Dockerfile.
type CheckReport struct {
	// JSON is BuildKit's lint format.
	JSON []byte
	// Text is for people: each warning with its place in the Dockerfile.
	Text string
	// Warnings is how many checks fired.
	Warnings int
	// Err is why the Dockerfile cannot be built, nil if it can as far as a plan tells.
	Err error
}

// lintResults and what is in it have the names of BuildKit's JSON.
type lintResults struct {
	Warnings   []lintWarning `json:"warnings"`
	Sources    []lintSource  `json:"sources"`
	BuildError *lintError    `json:"buildError,omitempty"`
}

type lintWarning struct {
	RuleName    string       `json:"ruleName"`
	Description string       `json:"description,omitempty"`
	URL         string       `json:"url,omitempty"`
	Detail      string       `json:"detail,omitempty"`
	Location    lintLocation `json:"location,omitzero"`
}

type lintLocation struct {
	SourceIndex int         `json:"sourceIndex,omitempty"`
	Ranges      []lintRange `json:"ranges,omitempty"`
}

type lintRange struct {
	Start lintPosition `json:"start"`
	End   lintPosition `json:"end"`
}

type lintPosition struct {
	Line      int `json:"line,omitempty"`
	Character int `json:"character,omitempty"`
}

type lintSource struct {
	Filename string `json:"filename,omitempty"`
	Data     []byte `json:"data,omitempty"`
	Language string `json:"language,omitempty"`
}

type lintError struct {
	Message  string       `json:"message"`
	Location lintLocation `json:"location"`
}

// Check reads the Dockerfile and reports what the build checks say, for all stages or, with a target, for those that it needs.
// Bases are looked up, nothing else is fetched, and nothing is built. A Dockerfile that cannot be parsed is an error.
func (b *Builder) Check(ctx context.Context, r Request) (report *CheckReport, err error) {
	bc, err := buildcontext.Open(r.Context, r.ContextSub)
	if err != nil {
		return nil, &setupError{err}
	}
	defer func() { err = errors.Join(err, bc.Close()) }()
	src, err := read(bc, r.Dockerfile)
	if err != nil {
		return nil, err
	}
	disk, err := openStore(r)
	if err != nil {
		return nil, &environmentError{err}
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	in, err := b.gather(r, src, disk)
	if err != nil {
		return nil, err
	}
	warnings, buildErr := check(ctx, r, src, in)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return newReport(src.file, warnings, buildErr)
}

// check plans every stage that is asked for and collects what is found on the way. The error is the first that is no finding.
func check(ctx context.Context, r Request, src *source, in inputs) ([]plan.Warning, error) {
	targets := []string{r.Target}
	if r.Target == "" {
		targets = nil
		// The last stage first: its errors are what a build would say.
		for i := len(src.file.Stages) - 1; i >= 0; i-- {
			targets = append(targets, fmt.Sprint(i))
		}
	}
	if len(r.Platforms) > 1 {
		r.Platforms = r.Platforms[:1]
	}
	var (
		warnings []plan.Warning
		failed   error
	)
	for _, target := range targets {
		r.Target = target
		plans, err := makePlans(ctx, r, src, in)
		var lint *plan.LintError
		switch {
		case errors.As(err, &lint):
			warnings = append(warnings, lint.Warnings...)
		case err != nil && failed == nil:
			failed = err
		case err == nil:
			warnings = append(warnings, plans[0].Warnings...)
		}
	}
	return unique(warnings), failed
}

// unique drops what was found once for every stage, and orders the rest by line.
func unique(all []plan.Warning) []plan.Warning {
	var out []plan.Warning
	for _, w := range all {
		same := func(o plan.Warning) bool {
			return o.Rule == w.Rule && o.Message == w.Message && slices.Equal(o.Location, w.Location)
		}
		if !slices.ContainsFunc(out, same) {
			out = append(out, w)
		}
	}
	slices.SortStableFunc(out, func(a, b plan.Warning) int { return firstLine(a.Location) - firstLine(b.Location) })
	return out
}

func newReport(file *dockerfile.File, warnings []plan.Warning, buildErr error) (*CheckReport, error) {
	res := lintResults{
		Warnings: []lintWarning{},
		Sources:  []lintSource{{Filename: file.Name, Data: file.Source, Language: "Dockerfile"}},
	}
	var text strings.Builder
	switch len(warnings) {
	case 0:
		text.WriteString("Check complete, no warnings found.\n")
	case 1:
		text.WriteString("Check complete, 1 warning has been found!\n")
	default:
		fmt.Fprintf(&text, "Check complete, %d warnings have been found!\n", len(warnings))
	}
	for _, w := range warnings {
		res.Warnings = append(res.Warnings, lintWarning{
			RuleName: w.Rule, Description: w.Description, URL: w.URL, Detail: w.Message, Location: location(w.Location),
		})
		fmt.Fprintf(&text, "\nWARNING: %s", w.Rule)
		if w.URL != "" {
			text.WriteString(" - " + w.URL)
		}
		fmt.Fprintf(&text, "\n%s\n%s", w.Message, Excerpt(file.Wrap(w.Location, errors.New(w.Message))))
	}
	if buildErr != nil {
		res.BuildError = &lintError{Message: Cause(buildErr)}
		var placed *dockerfile.Error
		if errors.As(buildErr, &placed) {
			res.BuildError.Location = location(placed.Location)
		}
	}
	raw, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return nil, err
	}
	return &CheckReport{JSON: raw, Text: text.String(), Warnings: len(warnings), Err: buildErr}, nil
}

func location(ranges []parser.Range) lintLocation {
	var l lintLocation
	for _, r := range ranges {
		l.Ranges = append(l.Ranges, lintRange{
			Start: lintPosition{r.Start.Line, r.Start.Character},
			End:   lintPosition{r.End.Line, r.End.Character},
		})
	}
	return l
}
