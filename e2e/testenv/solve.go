// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// Solve is one build by BuildKit, with what `docker build` can say.
type Solve struct {
	Context    string
	Dockerfile string            // directory and name of the Dockerfile; Context/Dockerfile when empty
	Options    map[string]string // of the frontend: "target", "build-arg:NAME", "label:NAME", "context:NAME", ...
	Locals     map[string]string // further local directories, by the name that a "context:NAME" option gives them
	Secrets    []string          // "id=ID,src=FILE"
	SSH        []string          // "ID=SOCKET"
	Layouts    map[string]string // OCI layouts, by name
	// Rewrite lets the exporter clamp file times to SOURCE_DATE_EPOCH.
	Rewrite     bool
	Destination string
}

// Solve builds without cache and pushes; one build at a time, so that none sees what another one left. When the build fails the error is BuildKit's, without "failed to solve:".
func (b BuildKit) Solve(ctx context.Context, s Solve) error {
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	if err := b.forgetDirectories(ctx); err != nil {
		return err
	}
	_, err := b.run(ctx, append(s.arguments(b), "--no-cache"))
	return err
}

// forgetDirectories: what was received of another build's directories would be the beginning of what is received for the next one, with
// its times, and files of the same size and time would not be received again.
func (b BuildKit) forgetDirectories(ctx context.Context) error {
	return b.prune(ctx, "--filter", "type==source.local")
}

// SolveCached builds with what the daemon has in its cache, and tells the instructions that it carried out; FROM is none.
func (b BuildKit) SolveCached(ctx context.Context, s Solve) (made []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	if err := b.forgetDirectories(ctx); err != nil {
		return nil, err
	}
	log, err := b.run(ctx, s.arguments(b))
	if err != nil {
		return nil, err
	}
	names := map[string]string{} // of instructions, by the number that the log gives them
	for line := range strings.Lines(log) {
		number, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if m := instructionLine.FindStringSubmatch(text); m != nil {
			names[number] = m[1]
			continue
		}
		if name := names[number]; name != "" && strings.HasPrefix(text, "DONE") && !strings.HasPrefix(name, "FROM ") {
			made = append(made, name)
		}
	}
	return made, nil
}

// instructionLine is the name of a vertex that is an instruction.
var instructionLine = regexp.MustCompile(`^\[(?:\S+ +)?\d+/\d+\] (.*)$`)

// Forget empties the daemon's cache.
func (b BuildKit) Forget(ctx context.Context) error { return b.prune(ctx, "--all") }

func (b BuildKit) prune(ctx context.Context, options ...string) error {
	if out, err := exec.CommandContext(ctx, b.client, append([]string{"--addr", b.address, "prune"}, options...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("buildctl prune: %w\n%s", err, out)
	}
	return nil
}

// arguments are those of buildctl.
func (s Solve) arguments(b BuildKit) []string {
	directory, name := s.Context, "Dockerfile"
	if i := strings.LastIndexByte(s.Dockerfile, '/'); i >= 0 {
		directory, name = s.Dockerfile[:i], s.Dockerfile[i+1:]
	}
	output := "type=image,push=true,registry.insecure=true,oci-mediatypes=true,name=" + s.Destination
	if s.Rewrite {
		output += ",rewrite-timestamp=true"
	}
	args := []string{
		"--addr", b.address, "build", "--progress", "plain", "--frontend", "dockerfile.v0", "--opt", "filename=" + name,
		"--local", "context=" + s.Context, "--local", "dockerfile=" + directory, "--output", output,
	}
	for flag, values := range map[string]map[string]string{"--opt": s.Options, "--local": s.Locals, "--oci-layout": s.Layouts} {
		for _, k := range slices.Sorted(maps.Keys(values)) {
			args = append(args, flag, k+"="+values[k])
		}
	}
	for _, secret := range s.Secrets {
		args = append(args, "--secret", secret)
	}
	for _, agent := range s.SSH {
		args = append(args, "--ssh", agent)
	}
	return args
}

// run gives the log.
func (b BuildKit) run(ctx context.Context, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, b.client, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	err := cmd.Run()
	if err == nil {
		return log.String(), nil
	}
	if _, cause, ok := strings.Cut(log.String(), "\nerror: failed to solve: "); ok {
		return "", fmt.Errorf("%s", strings.TrimSpace(cause))
	}
	return "", fmt.Errorf("buildctl: %w\n%s", err, log.Bytes())
}
