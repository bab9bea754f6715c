// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaniko-go/kaniko-go/builder/registry"
)

var full = flag.Bool("full", false, "every point with every fault and 20 seeds; else one seed for each point and fault")

const seeds = 20

// points are the requests of a build: the first of a kind, the second, and all of them.
func points() []Point {
	var list []Point
	for _, of := range []Point{
		{Kind: "ping"},
		{Kind: "token"},
		{Kind: "GET tag", Repo: "base"},
		{Kind: "GET blob", Repo: "base"},
		{Kind: "begin", Repo: "team"},
		{Kind: "patch", Repo: "team"},
		{Kind: "commit", Repo: "team"},
		{Kind: "mount", Repo: "team"},
		{Kind: "HEAD blob", Repo: "team"},
		{Kind: "PUT manifest", Repo: "team"},
		{Kind: "GET manifest", Repo: "team"},
		{Kind: "PUT tag", Repo: "team"},
		{Kind: "GET tag", Repo: "team"},
		{Kind: "HEAD tag", Repo: "team"},
		{Kind: "mount", Repo: "mirror"},
		{Kind: "begin", Repo: "mirror"},
		{Kind: "PUT manifest", Repo: "mirror"},
		{Kind: "PUT tag", Repo: "mirror"},
		{Kind: "GET tag", Repo: "mirror"},
		{Kind: "cancel", Repo: "team"},
	} {
		for _, nth := range []int{1, 2, 0} {
			of.Nth = nth
			list = append(list, of)
		}
	}
	return list
}

// timing has the limits that the real time keeps; all other waits pass by the scenario's clock.
var timing = registry.Timing{Connect: 10 * time.Second, ResponseHeader: 30 * time.Second, Commit: 30 * time.Second, NoProgress: 30 * time.Second}

// TestFaults: whatever a registry does, a push never succeeds without the image being there, byte for byte; before the first
// request that moves a tag was answered no tag has moved; trouble that passes is got over; and the failure is of the class that
// the exit code promises.
func TestFaults(t *testing.T) {
	scenarios := make([]*scenario, seeds)
	for i := range scenarios {
		scenarios[i] = newScenario(t, i)
	}
	type job struct {
		point Point
		fault Named
		seed  int
	}
	jobs := make(chan job)
	var wg sync.WaitGroup
	var count judged
	for range 4 {
		wg.Go(func() {
			r := New(t, false)
			for j := range jobs {
				count.judge(t, r, scenarios[j.seed], j.point, j.fault, j.seed)
			}
		})
	}
	for i, p := range points() {
		for k, f := range All() {
			for seed := range seeds {
				if *full || seed == (i*7+k)%seeds {
					jobs <- job{p, f, seed}
				}
			}
		}
	}
	close(jobs)
	wg.Wait()
	t.Logf("%d builds at %d points with %d faults: the fault happened in %d; %d succeeded and are complete, %d failed (%d worth a retry, %d refused, %d integrity); false successes %d, tags moved by failures %d",
		count.builds.Load(), len(points()), len(All()), count.happened.Load(), count.succeeded.Load(), count.failed.Load(),
		count.transient.Load(), count.refused.Load(), count.integrity.Load(), count.wrong.Load(), count.moved.Load())
	if count.happened.Load()*3 < count.builds.Load() {
		t.Error("in most of them nothing happened")
	}
}

// judged counts.
type judged struct {
	builds, happened, succeeded, failed, transient, refused, integrity, wrong, moved atomic.Int64
}

func (c *judged) judge(t *testing.T, r *Registry, s *scenario, p Point, f Named, seed int) {
	t.Helper()
	r.Reset()
	r.store(t, "base", "1", s.base)
	for _, repo := range s.repos {
		if s.replaces {
			r.store(t, repo, "1", s.old)
		}
	}
	r.Break(p, f.Fault)
	o := s.build(t, r, timing)
	happened, requests := r.Happened()
	c.builds.Add(1)
	if happened > 0 {
		c.happened.Add(1)
	}
	complain := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s, %s, seed %d: %s\n%v\n\t%s", p, f.Name, seed, fmt.Sprintf(format, args...), o.err, strings.Join(requests, "\n\t"))
	}
	if o.err == nil {
		c.succeeded.Add(1)
		for _, repo := range s.repos {
			if err := r.complete(t.Context(), repo, o.digest); err != nil {
				c.wrong.Add(1)
				complain("success, but %s: %v", repo, err)
			}
		}
		return
	}
	c.failed.Add(1)
	c.classify(o.err, p, complain)
	if happened == 0 {
		complain("failed without a fault")
	}
	// Who refuses a password, or what may say that there is none, is believed at once.
	login := p.Kind == "ping" || p.Kind == "token" && f.Name == "token expired"
	if f.Passing && p.Nth > 0 && !login {
		complain("failed for what passes")
	}
	c.tags(t, r, s, p, o, complain)
}

// classify looks at the error.
func (c *judged) classify(err error, p Point, complain func(string, ...any)) {
	var failed *registry.Error
	if !errors.As(err, &failed) {
		complain("the failure is not the registry's")
		return
	}
	switch failed.Class {
	case registry.Transient:
		c.transient.Add(1)
	case registry.Refused:
		c.refused.Add(1)
	case registry.Integrity:
		c.integrity.Add(1)
	case registry.Unsupported: // what a tag leads to may be anything
		if p.Kind != "GET tag" || p.Repo != "base" {
			complain("unsupported")
		}
	case registry.Invalid:
		complain("invalid")
	}
	if strings.ContainsAny(err.Error(), "\n\r") || strings.Contains(err.Error(), Password) {
		complain("the failure is not one clean line")
	}
}

// tags: after a failure each has what it had, but for those that the failure names, and those whose own request or look was what failed.
func (c *judged) tags(t *testing.T, r *Registry, s *scenario, p Point, o outcome, complain func(string, ...any)) {
	t.Helper()
	before := ""
	if s.replaces {
		d, err := s.old.Digest()
		if err != nil {
			t.Fatal(err)
		}
		before = d.String()
	}
	for _, repo := range s.repos {
		now, _ := r.Has(t.Context(), repo, "1")
		told := slices.ContainsFunc(o.moved, func(m string) bool { return strings.Contains(m, repo) })
		asked := strings.HasSuffix(string(p.Kind), " tag") && strings.HasPrefix(repo, p.Repo)
		if now != before && !told && !asked {
			c.moved.Add(1)
			complain("the tag of %s went from %q to %q", repo, before, now)
		}
	}
}
