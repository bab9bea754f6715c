// SPDX-License-Identifier: Apache-2.0

// Package progress tells people how a build is going: which instruction runs and what it says, how far
// long transfers are, and in the end a table of where the time went. It writes through the
// zap logger that it is given: as text, each line is the message; as JSON, the fields carry the same again.
package progress

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
	"unicode"

	"go.uber.org/zap"
)

// Log is safe for concurrent use.
type Log struct {
	zap *zap.Logger

	mu    sync.Mutex
	steps []*Step
	total int
	done  int
	// onStep is told how many of the instructions that count are done.
	onStep func(done, total int)
	// masked are the secrets that must not be seen, longest first.
	masked []string
}

// New makes a Log. onStep, which may be nil, is called one call at a time when an instruction that counts is done.
func New(z *zap.Logger, onStep func(done, total int)) *Log {
	return &Log{zap: z, onStep: onStep}
}

// Expect says how many instructions will be reported.
func (l *Log) Expect(total int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total = total
}

// Info writes one line.
func (l *Log) Info(text string, fields ...zap.Field) { l.zap.Info(Clean(text), fields...) }

// Warn writes one line that somebody should read.
func (l *Log) Warn(text string, fields ...zap.Field) { l.zap.Warn(Clean(text), fields...) }

// Debug writes one line for whoever looks for a fault.
func (l *Log) Debug(text string, fields ...zap.Field) { l.zap.Debug(Clean(text), fields...) }

// Debugs reports whether anybody reads what Debug says.
func (l *Log) Debugs() bool { return l.zap.Core().Enabled(zap.DebugLevel) }

// shortest is the least a secret has for being masked: a shorter one would make a log unreadable and hide nothing.
const shortest = 4

// Mask keeps a secret out of what commands say from now on: each line of it is replaced by asterisks.
func (l *Log) Mask(secret string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(secret) {
		if line = strings.TrimSpace(line); len(line) >= shortest && !slices.Contains(l.masked, line) {
			l.masked = append(l.masked, line)
		}
	}
	sort.SliceStable(l.masked, func(i, j int) bool { return len(l.masked[i]) > len(l.masked[j]) })
}

func (l *Log) mask(line string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.masked {
		line = strings.ReplaceAll(line, s, "****")
	}
	return line
}

// Restart forgets the instructions so far: the build begins again.
func (l *Log) Restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps, l.done = nil, 0
}

// longestMasked is the length of the longest secret.
func (l *Log) longestMasked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.masked) == 0 {
		return 0
	}
	return len(l.masked[0])
}

// Step is one instruction on its way.
type Step struct {
	log           *Log
	label         string
	stage, text   string
	started       time.Time
	duration      time.Duration
	outcome, size string
	counts        bool
	cached        bool
}

// Start reports that an instruction begins. stage is "" when there is only one; number and total are the n/m
// that people see, number 0 for an instruction that only touches the configuration.
func (l *Log) Start(stage string, number, total int, text string) *Step {
	s := &Step{log: l, stage: stage, text: Clean(text), started: time.Now(), counts: number > 0}
	s.label = strings.TrimSpace(stage)
	if number > 0 {
		s.label = strings.TrimSpace(fmt.Sprintf("%s %d/%d", stage, number, total))
	}
	line := s.text
	if s.label != "" {
		line = "[" + s.label + "] " + line
	}
	l.zap.Info(line, zap.String("stage", stage), zap.Int("instruction", number), zap.Int("of", total), zap.String("event", "start"))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps = append(l.steps, s)
	return s
}

// Done reports that the instruction is done; outcome is what is worth saying of it besides the time, or "".
func (s *Step) Done(outcome string) {
	s.duration = time.Since(s.started)
	s.outcome = outcome
	if s.counts {
		line := fmt.Sprintf("[%s] done in %s", s.label, Duration(s.duration))
		if outcome != "" {
			line += ", " + outcome
		}
		s.log.zap.Info(line, zap.String("stage", s.stage), zap.String("event", "done"), zap.Duration("duration", s.duration), zap.String("outcome", outcome))
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	if !s.counts {
		return
	}
	s.log.done++
	if s.log.onStep != nil {
		s.log.onStep(s.log.done, s.log.total)
	}
}

// Cached reports that there was nothing to do: the layer, of that many bytes, was made before.
func (s *Step) Cached(bytes int64) {
	s.log.mu.Lock()
	s.cached, s.size = true, Bytes(bytes)
	s.log.mu.Unlock()
	s.Done("cached, " + Bytes(bytes))
}

// Sized records, for the table, the size of the layer that the instruction made.
func (s *Step) Sized(bytes int64) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.size = Bytes(bytes)
}

// Output returns a writer for what a command says: each line goes to the log with the instruction's
// label, secrets masked. Close writes a last line that has no end.
func (s *Step) Output() *Lines {
	return &Lines{
		mask: s.log.mask,
		hold: s.log.longestMasked,
		now:  time.Now,
		emit: func(line string) {
			s.log.zap.Info(fmt.Sprintf("[%s] | %s", s.label, Clean(line)), zap.String("stage", s.stage), zap.String("event", "output"))
		},
	}
}

// Table writes one line for each instruction: label, time, size of the layer and text; stages in the order given.
func (l *Log) Table(stages []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sort.SliceStable(l.steps, func(i, j int) bool {
		return slices.Index(stages, l.steps[i].stage) < slices.Index(stages, l.steps[j].stage)
	})
	width := 0
	for _, s := range l.steps {
		width = max(width, len(s.label))
	}
	l.zap.Info(fmt.Sprintf("%-*s  %8s  %6s  %10s  %s", width, "", "time", "cached", "layer", "instruction"))
	for _, s := range l.steps {
		if !s.counts {
			continue
		}
		size := s.size
		if size == "" {
			size = "-"
		}
		text := s.text
		if len(text) > 80 {
			text = text[:77] + "..."
		}
		cached := "no"
		if s.cached {
			cached = "yes"
		}
		l.zap.Info(fmt.Sprintf("%-*s  %8s  %6s  %10s  %s", width, s.label, Duration(s.duration), cached, size, text),
			zap.String("event", "summary"), zap.String("stage", s.stage), zap.Duration("duration", s.duration))
	}
}

// Clean makes text fit for one line of a terminal: control characters, which could drive it, become question marks.
// Colours (escape sequences) of a command's output are not kept either.
func Clean(s string) string {
	if strings.IndexFunc(s, hostile) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if hostile(r) {
			return '?'
		}
		return r
	}, s)
}

func hostile(r rune) bool { return r != '\t' && unicode.IsControl(r) }

// Duration is d as people read it: 0.1s, 12.3s, 4m05s.
func Duration(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	d = d.Round(time.Second)
	return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
}

// Bytes is n as people read it, in decimal units as registries give them.
func Bytes(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1000*1000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1000*1000*1000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	default:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	}
}
