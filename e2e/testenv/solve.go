// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os/exec"
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
	directory, name := s.Context, "Dockerfile"
	if i := strings.LastIndexByte(s.Dockerfile, '/'); i >= 0 {
		directory, name = s.Dockerfile[:i], s.Dockerfile[i+1:]
	}
	output := "type=image,push=true,registry.insecure=true,oci-mediatypes=true,name=" + s.Destination
	if s.Rewrite {
		output += ",rewrite-timestamp=true"
	}
	args := []string{
		"--addr", b.address, "build", "--progress", "plain", "--no-cache", "--frontend", "dockerfile.v0", "--opt", "filename=" + name,
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
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	// What was received of another build's directories would be the beginning of what is received for this one, with its times.
	if out, err := exec.CommandContext(ctx, b.client, "--addr", b.address, "prune", "--filter", "type==source.local").CombinedOutput(); err != nil {
		return fmt.Errorf("buildctl prune: %w\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, b.client, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if _, cause, ok := strings.Cut(log.String(), "\nerror: failed to solve: "); ok {
		return fmt.Errorf("%s", strings.TrimSpace(cause))
	}
	return fmt.Errorf("buildctl: %w\n%s", err, log.Bytes())
}
