// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// job is one build that a builder is asked for.
type job struct {
	state       string // an empty directory of its own for this build
	buildDir    string // holds Dockerfile and the build context
	destination string
	arguments   map[string]string // build arguments
	cache       string            // a repository that the builder may use as cache, or ""
	registry    string            // host:port, plain HTTP
	cgroup      string            // the measured group's path, for runtimes that place containers themselves
}

// builder starts from nothing, builds, pushes and leaves nothing running.
type builder struct {
	name    string
	version string
	// argv prepares the state directory, unmeasured, and gives the command that is measured.
	argv func(j job) (argv, env []string, err error)
}

// pathOnly is the environment of every builder: nothing of ours leaks into one of them.
func pathOnly(j job) []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + j.state, "TMPDIR=" + j.state}
}

// pairs gives the build arguments as NAME=VALUE in a fixed order.
func pairs(arguments map[string]string) []string {
	list := make([]string, 0, len(arguments))
	for k, v := range arguments {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return list
}

// ours is kaniko-go as a pod runs it: environment only, work directory on a volume.
func ours(binary string) builder {
	return builder{name: "kaniko-go", version: "this tree", argv: func(j job) ([]string, []string, error) {
		env := append(pathOnly(j),
			"KANIKO_CONTEXT="+j.buildDir, "KANIKO_DESTINATION="+j.destination, "KANIKO_DIR="+filepath.Join(j.state, "work"),
			"KANIKO_BUILD_ARG="+strings.Join(pairs(j.arguments), "\n"))
		if j.cache != "" {
			env = append(env, "KANIKO_CACHE=true", "KANIKO_CACHE_REPO="+j.cache+"/kaniko-go")
		}
		return []string{binary}, env, nil
	}}
}

// buildkit is a daemon that is started for the one build and stopped after it, with the overlay snapshotter.
func buildkit(daemon, client, runtime string) builder {
	return builder{name: "buildkit", version: "v0.34.2", argv: func(j job) ([]string, []string, error) {
		config := fmt.Sprintf("[worker.oci]\nenabled = true\nsnapshotter = \"overlayfs\"\nbinary = %q\nnetworkMode = \"host\"\ngc = false\n", runtime)
		if j.cgroup != "" { // it gives containers an absolute path: without this they escape the measured group
			config += fmt.Sprintf("defaultCgroupParent = %q\n", j.cgroup)
		}
		config += fmt.Sprintf("[worker.containerd]\nenabled = false\n[registry.%q]\nhttp = true\ninsecure = true\n", j.registry)
		toml := filepath.Join(j.state, "buildkitd.toml")
		if err := os.WriteFile(toml, []byte(config), 0o600); err != nil {
			return nil, nil, err
		}
		address := "unix://" + filepath.Join(j.state, "sock")
		args := []string{
			"--frontend", "dockerfile.v0", "--progress", "plain", "--local", "context=" + j.buildDir, "--local", "dockerfile=" + j.buildDir,
			"--output", "type=image,push=true,registry.insecure=true,name=" + j.destination,
		}
		for _, pair := range pairs(j.arguments) {
			args = append(args, "--opt", "build-arg:"+pair)
		}
		if j.cache != "" {
			ref := "type=registry,ref=" + j.cache + "/buildkit:cache"
			args = append(args, "--import-cache", ref, "--export-cache", ref+",mode=max")
		}
		script := `daemon=$1 toml=$2 root=$3 address=$4 client=$5; shift 5
"$daemon" --config "$toml" --root "$root" --addr "$address" >&2 & pid=$!
tries=0
until "$client" --addr "$address" debug workers >/dev/null 2>&1; do
  tries=$((tries+1)); [ $tries -lt 400 ] || { echo "buildkitd does not answer" >&2; exit 1; }
  sleep 0.05
done
"$client" --addr "$address" build "$@"; code=$?
kill $pid; wait $pid
exit $code`
		argv := append([]string{"/bin/sh", "-c", script, "sh", daemon, toml, filepath.Join(j.state, "root"), address, client}, args...)
		return argv, pathOnly(j), nil
	}}
}

// buildah builds with chroot isolation on overlay storage, a layer an instruction, and pushes.
func buildah(program, version string) builder {
	return builder{name: "buildah", version: version, argv: func(j job) ([]string, []string, error) {
		files := map[string]string{
			"policy.json":     `{"default":[{"type":"insecureAcceptAnything"}]}`,
			"registries.conf": "unqualified-search-registries = []\n",
			"storage.conf":    fmt.Sprintf("[storage]\ndriver = \"overlay\"\nrunroot = %q\ngraphroot = %q\n", filepath.Join(j.state, "run"), filepath.Join(j.state, "root")),
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(j.state, name), []byte(text), 0o600); err != nil {
				return nil, nil, err
			}
		}
		// What an earlier build learned about the registry's blobs would spare this one its upload.
		known, err := filepath.Glob("/var/lib/containers/cache/blob-info-cache-v1.*")
		if err != nil {
			return nil, nil, err
		}
		for _, name := range known {
			if err := os.Remove(name); err != nil {
				return nil, nil, err
			}
		}
		build := []string{"--isolation", "chroot", "--network", "host", "--layers=true"}
		for _, pair := range pairs(j.arguments) {
			build = append(build, "--build-arg", pair)
		}
		if j.cache != "" {
			build = append(build, "--cache-from", j.cache+"/buildah", "--cache-to", j.cache+"/buildah")
		}
		script := `program=$1 state=$2 destination=$3 directory=$4; shift 4
"$program" --root "$state/root" --runroot "$state/run" --storage-driver overlay build --tls-verify=false --signature-policy "$state/policy.json" -t "$destination" "$@" "$directory" &&
"$program" --root "$state/root" --runroot "$state/run" --storage-driver overlay push --tls-verify=false --signature-policy "$state/policy.json" "$destination"`
		argv := append([]string{"/bin/sh", "-c", script, "sh", program, j.state, j.destination, j.buildDir}, build...)
		env := append(pathOnly(j), "CONTAINERS_STORAGE_CONF="+filepath.Join(j.state, "storage.conf"), "CONTAINERS_REGISTRIES_CONF="+filepath.Join(j.state, "registries.conf"))
		return argv, env, nil
	}}
}

// tool asks the tools cache for a program that is compiled from source; .ci/tool says so when that takes a while.
func tool(ctx context.Context, name string) (string, error) {
	cmd := exec.CommandContext(ctx, ".ci/tool", name)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}
