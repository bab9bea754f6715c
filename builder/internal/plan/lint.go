// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"

	"github.com/kaniko-go/kaniko-go/builder/internal/dockerfile"
)

// warnFromArgs reports variables of a FROM line that no ARG before the first FROM declares.
func (p *planner) warnFromArgs(lint *linter.Linter, expanded dockerfile.Expansion, location []parser.Range) {
	if len(expanded.Undefined) == 0 {
		return
	}
	declared := p.global.Keys()
	for _, cmd := range p.file.MetaArgs {
		for _, arg := range cmd.Args {
			declared = append(declared, arg.Key)
		}
	}
	slices.Sort(declared)
	declared = slices.Compact(declared)
	for _, name := range expanded.Undefined {
		if _, ok := slices.BinarySearch(declared, name); ok {
			continue
		}
		match := ""
		if len(declared) <= maxSuggest && len(expanded.Undefined) <= maxSuggest && len(name) <= maxMistyped {
			match, _ = suggest.Search(name, declared, true)
		}
		rule := &linter.RuleUndefinedArgInFrom
		lint.Run(rule, location, rule.Format(name, match))
	}
}

// warnFromPlatform reports a --platform that changes nothing, or that is the
// same for every target. A stage that has the platform in its name is meant so.
func (p *planner) warnFromPlatform(lint *linter.Linter, stage instructions.Stage, expanded dockerfile.Expansion) {
	if target, _ := p.global.Get("TARGETPLATFORM"); len(expanded.Undefined) == 0 &&
		slices.Equal(expanded.Used, []string{"TARGETPLATFORM"}) && expanded.Text == target {
		rule := &linter.RuleRedundantTargetPlatform
		lint.Run(rule, stage.Location, rule.Format(stage.Platform))
	}
	if len(expanded.Used) > 0 || len(expanded.Undefined) > 0 {
		return
	}
	platform, err := platforms.Parse(expanded.Text)
	if err != nil || strings.Contains(stage.Name, platform.OS) || strings.Contains(stage.Name, platform.Architecture) {
		return
	}
	rule := &linter.RuleFromPlatformFlagConstDisallowed
	lint.Run(rule, stage.Location, rule.Format(expanded.Text))
}

// lintDefaults looks at what base names are without any build argument.
func (p *planner) lintDefaults() {
	defaults := p.global.Clone()
	for _, cmd := range p.file.MetaArgs {
		for _, arg := range cmd.Args {
			if arg.Value == nil {
				continue
			}
			expanded, err := p.expander.Word(*arg.Value, defaults)
			if err != nil {
				return // will be found again, for the build
			}
			defaults.Set(arg.Key, expanded.Text)
			if checkEnv(defaults) != nil {
				return
			}
		}
	}
	for _, stage := range p.file.Stages {
		base, err := p.expander.Word(stage.BaseName, defaults)
		if err != nil {
			return
		}
		if _, err := reference.ParseNormalizedNamed(base.Text); err != nil {
			rule := &linter.RuleInvalidDefaultArgInFrom
			p.lint.Run(rule, stage.Location, rule.Format(stage.BaseName))
		}
	}
}

// warnIgnored reports a source that the ignore file hides.
func (s *stageState) warnIgnored(t *transfer, source string) {
	if s.p.req.Ignored == nil || s.at.from != nil {
		return
	}
	source = path.Clean(source)
	if s.p.req.Ignored(source) {
		rule := &linter.RuleCopyIgnoredFile
		s.lint.Run(rule, s.at.Location(), rule.Format(t.name[:1]+strings.ToLower(t.name[1:]), source))
	}
}

// lintFile runs the checks that look at all stages.
func (p *planner) lintFile() {
	names := map[string]bool{}
	for _, stage := range p.file.Stages {
		if stage.Name == "" {
			continue
		}
		if stage.Name == scratch || stage.Name == "context" {
			rule := &linter.RuleReservedStageName
			p.lint.Run(rule, stage.Location, rule.Format(stage.Name))
		}
		if names[stage.Name] {
			rule := &linter.RuleDuplicateStageName
			p.lint.Run(rule, stage.Location, rule.Format(stage.Name))
		}
		names[stage.Name] = true
	}
	p.lintCasing()
}

// lintCasing wants instruction names all upper or all lower case, whichever
// the file has more of.
func (p *planner) lintCasing() {
	type word struct {
		name     string
		location []parser.Range
	}
	var words []word
	for _, stage := range p.file.Stages {
		words = append(words, word{stage.OrigCmd, stage.Location})
		for _, cmd := range stage.Commands {
			words = append(words, word{cmd.Name(), cmd.Location()})
		}
	}
	lower, upper := 0, 0
	for _, w := range words {
		switch w.name {
		case strings.ToLower(w.name):
			lower++
		case strings.ToUpper(w.name):
			upper++
		}
	}
	want, fix := "uppercase", strings.ToUpper
	if lower > upper {
		want, fix = "lowercase", strings.ToLower
	}
	for _, w := range words {
		if w.name != fix(w.name) {
			rule := &linter.RuleConsistentInstructionCasing
			p.lint.Run(rule, w.location, rule.Format(w.name, want))
		}
	}
}

// warnUndefined reports variables that nothing defines; an ARG without a value counts as defined.
func (s *stageState) warnUndefined(names []string) {
	if len(names) == 0 {
		return
	}
	keys := s.env.Keys()
	if len(keys) > maxSuggest || len(names) > maxSuggest {
		keys = nil
	}
	for _, name := range names {
		if _, declared := s.argValues[name]; declared || neverInEnv(name) {
			continue
		}
		rule := &linter.RuleUndefinedVar
		match := ""
		if len(name) <= maxMistyped {
			match, _ = suggest.Search(name, keys, true)
		}
		s.lint.Run(rule, s.at.Location(), rule.Format(name, match))
	}
}

var (
	secretName   = regexp.MustCompile(`(?i)(^|_)(apikey|auth|credentials?|key|password|pword|passwd|secret|token)(_|$)`)
	harmlessName = regexp.MustCompile(`(?i)(^|_)(public|file|version)(_|$)`)
)

func (s *stageState) warnSecret(instruction, key string) {
	if secretName.MatchString(key) && !harmlessName.MatchString(key) {
		rule := &linter.RuleSecretsUsedInArgOrEnv
		s.lint.Run(rule, s.at.Location(), rule.Format(instruction, key))
	}
}

func (s *stageState) warnLegacy(kv instructions.KeyValuePair, name string) {
	if kv.NoDelim {
		rule := &linter.RuleLegacyKeyValueFormat
		s.lint.Run(rule, s.at.Location(), rule.Format(name))
	}
}

// warnWorkdir looks only at the first WORKDIR: later ones build on it.
func (s *stageState) warnWorkdir(next string) {
	if !s.workdirSet && !path.IsAbs(next) {
		rule := &linter.RuleWorkdirRelativePath
		s.lint.Run(rule, s.at.Location(), rule.Format(next))
	}
}

// warnRepeated points at the earlier instruction, the one without effect.
func (s *stageState) warnRepeated(kind string, c instructions.Command) {
	if before, ok := s.seen[kind]; ok {
		rule := &linter.RuleMultipleInstructionsDisallowed
		s.lint.Run(rule, before, rule.Format(c.Name()))
	}
	s.seen[kind] = slices.Clone(c.Location())
}
