// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"
)

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
		match, _ := suggest.Search(name, keys, true)
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
