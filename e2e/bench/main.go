// SPDX-License-Identifier: Apache-2.0

// Command bench builds the same Dockerfiles with kaniko-go, BuildKit and buildah, interleaved and each time from nothing,
// measures every build from outside and prints a table of ratios. It makes its own build contexts, bases and registry, and
// needs root and the packages of e2e/packages.sh. `make bench` runs it. It is not a micro-benchmark: those are beside the code.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kaniko-go/kaniko-go/e2e/cgroup"
	"github.com/kaniko-go/kaniko-go/e2e/testenv"
)

// bench is one invocation.
type bench struct {
	workloads []string
	builders  []string
	rounds    int
	limit     time.Duration
	binary    string
	output    string // Markdown file, besides standard output
	work      string
	log       io.Writer
	host      string
	bases     map[string]string
}

func main() {
	b := bench{log: os.Stderr}
	only := flag.String("workloads", "no-op,copy-only,many-runs,big-layer,multistage,many-files,warm-cache", "comma-separated names, or all")
	builders := flag.String("builders", "kaniko-go,buildkit,buildah", "comma-separated names")
	flag.IntVar(&b.rounds, "n", 3, "rounds")
	flag.DurationVar(&b.limit, "limit", 15*time.Minute, "limit of one build")
	flag.StringVar(&b.binary, "binary", "bin/kaniko-go", "kaniko-go's binary")
	flag.StringVar(&b.output, "o", "", "file that receives the table, too")
	flag.Parse()
	b.workloads, b.builders = strings.Split(*only, ","), strings.Split(*builders, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

func (b *bench) run(ctx context.Context) error {
	loads, builders, err := b.choose(ctx)
	if err != nil {
		return err
	}
	if b.work, err = os.MkdirTemp("", "kaniko-go-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.work) //nolint:errcheck // a temporary directory
	registry, err := testenv.StartRegistry(ctx, b.work, testenv.RegistryOptions{})
	if err != nil {
		return err
	}
	defer registry.Stop()
	b.host = registry.Host
	if b.bases, err = pushBases(ctx, b.host, b.log); err != nil {
		return err
	}
	records, err := b.rounded(ctx, loads, builders)
	if err != nil {
		return err
	}
	if err := report(os.Stdout, records, builders, b.rounds); err != nil || b.output == "" {
		return err
	}
	f, err := os.Create(b.output)
	if err != nil {
		return err
	}
	return errors.Join(report(f, records, builders, b.rounds), f.Close())
}

func (b *bench) choose(ctx context.Context) ([]workload, []builder, error) {
	var loads []workload
	for _, load := range workloads() {
		if b.workloads[0] == "all" || slices.Contains(b.workloads, load.name) {
			loads = append(loads, load)
		}
	}
	var chosen []builder
	for _, name := range b.builders {
		made, err := b.builder(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		chosen = append(chosen, made)
	}
	if len(loads) == 0 {
		return nil, nil, fmt.Errorf("no workload is called %s", strings.Join(b.workloads, " or "))
	}
	return loads, chosen, nil
}

func (b *bench) builder(ctx context.Context, name string) (builder, error) {
	switch name {
	case "kaniko-go":
		binary, err := filepath.Abs(b.binary)
		if err == nil {
			_, err = os.Stat(binary)
		}
		return ours(binary), err
	case "buildkit":
		daemon, err := tool(ctx, "buildkitd")
		if err != nil {
			return builder{}, err
		}
		client, err := tool(ctx, "buildctl")
		if err != nil {
			return builder{}, err
		}
		runtime, err := exec.LookPath("runc")
		return buildkit(daemon, client, runtime), err
	case "buildah":
		program, err := exec.LookPath("buildah")
		if err != nil {
			return builder{}, err
		}
		out, err := exec.CommandContext(ctx, program, "--version").Output()
		if err != nil {
			return builder{}, err
		}
		return buildah(program, strings.Fields(string(out))[2]), nil
	}
	return builder{}, fmt.Errorf("%s: unknown builder; there are kaniko-go, buildkit and buildah", name)
}

// rounded builds every workload with every builder in turn; the rounds of one workload follow each other, so that ratios
// compare builds that ran minutes apart at most.
func (b *bench) rounded(ctx context.Context, loads []workload, builders []builder) ([]record, error) {
	var records []record
	for _, load := range loads {
		first := 1
		if load.cached {
			first = 0
		}
		for round := first; round <= b.rounds; round++ {
			for _, builder := range builders {
				r, err := b.one(ctx, load, builder, round)
				if err != nil {
					return nil, fmt.Errorf("%s with %s: %w", load.name, builder.name, err)
				}
				if round > 0 {
					records = append(records, r)
				}
			}
		}
	}
	return records, nil
}

func (b *bench) one(ctx context.Context, load workload, with builder, round int) (record, error) {
	r := record{workload: load.name, builder: with.name, round: round}
	state, err := os.MkdirTemp(b.work, "state-")
	if err != nil {
		return r, err
	}
	defer cleanUp(state)
	j := job{state: state, registry: b.host, arguments: b.bases, destination: fmt.Sprintf("%s/out/%s/%s-%d:1", b.host, with.name, load.name, round)} // a repository used before would hide uploads
	if j.buildDir, err = b.buildDir(load, round); err != nil {
		return r, err
	}
	if load.cached {
		j.cache = b.host + "/cache"
	}
	group, err := cgroup.New(filepath.Base(b.work) + "-" + filepath.Base(state))
	if err != nil {
		fmt.Fprintln(b.log, err)
	} else {
		defer group.Remove()
		j.cgroup = group.Path()
	}
	argv, env, err := with.argv(j)
	if err != nil {
		return r, err
	}
	log, err := os.Create(filepath.Join(b.work, fmt.Sprintf("%s-%s-%d.log", load.name, with.name, round)))
	if err != nil {
		return r, err
	}
	defer log.Close() //nolint:errcheck // a log
	syscall.Sync()    // what earlier builds wrote must not be written in this one's time
	if r.cost, err = measure(ctx, group, argv, env, b.limit, log); err != nil {
		return r, err
	}
	if err := ctx.Err(); err != nil {
		return r, err
	}
	fmt.Fprintf(b.log, "%-10s %-9s round %d: exit %d, %.2f s wall, %.2f s CPU, %.0f MB anonymous\n", load.name, with.name, round, r.cost.code, r.cost.wall.Seconds(), r.cost.cpu().Seconds(), float64(r.cost.anonymous)/1e6)
	if r.cost.code != 0 {
		return r, tail(b.log, log.Name())
	}
	return r, r.weigh(j.destination, b.bases[load.base])
}

// buildDir is the directory with the context and the Dockerfile, made when it is first asked for.
func (b *bench) buildDir(load workload, round int) (string, error) {
	dir, salt := filepath.Join(b.work, "context-"+load.name), "first"
	if load.cached {
		salt = fmt.Sprint(round)
		dir += "-" + salt
	}
	if _, err := os.Stat(filepath.Join(dir, "Dockerfile")); err == nil {
		return dir, nil
	}
	fmt.Fprintf(b.log, "context of %s\n", load.name)
	if err := load.generate(dir, salt); err != nil {
		return "", err
	}
	return dir, write(dir, "Dockerfile", []byte(load.dockerfile), 0o644)
}

// weigh reads back what was pushed.
func (r *record) weigh(image, base string) error {
	made, err := layers(image)
	if err != nil {
		return err
	}
	below, err := layers(base)
	if err != nil {
		return err
	}
	r.layers = len(made)
	for _, l := range made {
		if !slices.ContainsFunc(below, func(b v1.Descriptor) bool { return b.Digest == l.Digest }) {
			r.added += l.Size
		}
	}
	return nil
}

func layers(reference string) ([]v1.Descriptor, error) {
	image, err := crane.Pull(reference, crane.Insecure)
	if err != nil {
		return nil, err
	}
	m, err := image.Manifest()
	if err != nil {
		return nil, err
	}
	return m.Layers, nil
}

// cleanUp unmounts what a builder left below dir and removes it.
func cleanUp(dir string) {
	if mounts, err := os.ReadFile("/proc/self/mounts"); err == nil {
		for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) {
			if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir) {
				_ = syscall.Unmount(f[1], syscall.MNT_DETACH)
			}
		}
	}
	_ = os.RemoveAll(dir)
}

func tail(w io.Writer, name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	_, err = w.Write(b[max(0, len(b)-4096):])
	return err
}
