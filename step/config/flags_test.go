// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// loadFlags is the configuration of a command line in an environment.
func loadFlags(t *testing.T, env map[string]string, argv ...string) (*Config, *Arguments, error) {
	t.Helper()
	setEnv(t, env)
	a, err := ParseArguments(argv)
	if err != nil {
		return nil, a, err
	}
	c, err := a.Load()
	return c, a, err
}

func TestFlags(t *testing.T) {
	type want struct {
		Context, Dockerfile, Target, Dir string
		Destination                      List
		BuildArg                         Pairs
		Cache, NoPush                    bool
		TTL                              time.Duration
		Verbosity                        Verbosity
		LogFormat                        LogFormat
	}
	base := want{Context: ".", Dockerfile: "Dockerfile", Dir: DefaultDir, TTL: 336 * time.Hour, Verbosity: Info, LogFormat: LogText, Destination: List{"r.example/a:1"}}
	with := func(f func(*want)) want { w := base; f(&w); return w }
	tests := []struct {
		name  string
		env   map[string]string
		argv  []string
		want  want
		notes []string
	}{
		{"value after =", nil, []string{"--destination=r.example/a:1"}, base, nil},
		{"value after a space", nil, []string{"--destination", "r.example/a:1"}, base, nil},
		{
			"letters", nil,
			[]string{"-d", "r.example/a:1", "-c=/src", "-fdocker/Dockerfile", "-v", "debug"},
			with(func(w *want) { w.Context, w.Dockerfile, w.Verbosity = "/src", "docker/Dockerfile", Debug }),
			nil,
		},
		{
			"a list in order, with commas and line breaks", nil,
			[]string{"--destination=r.example/a:1", "--destination", "r.example/b:2", "--build-arg=A=1,2", "--build-arg", "B= x\ny"},
			with(func(w *want) {
				w.Destination, w.BuildArg = List{"r.example/a:1", "r.example/b:2"}, Pairs{{Key: "A", Value: "1,2"}, {Key: "B", Value: " x\ny"}}
			}),
			nil,
		},
		{
			"one item that looks like JSON", nil,
			[]string{"--destination=r.example/a:1", `--build-arg=["A"]=x`},
			with(func(w *want) { w.BuildArg = Pairs{{Key: `["A"]`, Value: "x"}} }),
			nil,
		},
		{
			"a build argument from the environment",
			map[string]string{"FROM_CI": "yes"},
			[]string{"--destination=r.example/a:1", "--build-arg=FROM_CI", "--build-arg=NOT_THERE"},
			with(func(w *want) { w.BuildArg = Pairs{{Key: "FROM_CI", Value: "yes"}} }),
			nil,
		},
		{
			"the last scalar, the first target, and flags before variables",
			map[string]string{"KANIKO_TARGET": "env", "KANIKO_DESTINATION": "r.example/env:1", "KANIKO_CONTEXT": "/env"},
			[]string{"--destination=r.example/a:1", "--target=", "--target=one", "--target=two", "--kaniko-dir=/x", "--kaniko-dir=/y"},
			with(func(w *want) {
				w.Context, w.Target, w.Dir, w.Destination = "/env", "one", "/y", List{"r.example/env:1", "r.example/a:1"}
			}),
			[]string{"--target: only one, the first, is built; the others would not be pushed"},
		},
		{
			"booleans",
			map[string]string{"KANIKO_CACHE": "true"},
			[]string{"--no-push", "--cache=false", "--cache-ttl", "6h", "--destination=r.example/a:1", "--insecure=1"},
			with(func(w *want) { w.NoPush, w.TTL = true, 6*time.Hour }),
			nil,
		},
		{
			"words of kaniko", nil,
			[]string{"--destination=r.example/a:1", "--log-format=color", "--verbosity=fatal", "--target=a,b"},
			with(func(w *want) { w.Verbosity, w.Target = Error, "a" }),
			[]string{"--target: only a, the first, is built; the others would not be pushed"},
		},
		{
			"without meaning, noted once", nil,
			[]string{"--use-new-run", "--use-new-run=true", "--snapshot-mode", "redo", "--destination=r.example/a:1", "--single-snapshot=false", "--materialize=false"},
			base,
			[]string{
				"--use-new-run has no meaning here: there is one way to find what a RUN changed, exact and without reading every file",
				"--snapshot-mode has no meaning here: there is one way to find what a RUN changed, exact and without reading every file",
				"--single-snapshot has no meaning here: not supported: every instruction is a layer, and what one removes stays in the layer below; build in one stage and COPY --from it into another",
				"--materialize has no meaning here: not supported: a build leaves the container's root as it was",
			},
		},
		{
			"unknown variables are a note",
			map[string]string{"KANIKO_VERSION": "1", "KANIKO_IMAG": "x", "FF_KANIKO_COPY_AS_ROOT": "1", "FF_KANIKO_OCI_WARMER": "0"},
			[]string{"--destination=r.example/a:1"},
			base,
			[]string{
				"FF_KANIKO_COPY_AS_ROOT, FF_KANIKO_OCI_WARMER: kaniko's feature flags have no meaning here: what they correct is always right",
				"unknown variables: KANIKO_IMAG (did you mean KANIKO_IMAGE?), KANIKO_VERSION; see docs/configuration.md",
			},
		},
		{
			"no mirrors to rely on", nil,
			[]string{"--destination=r.example/a:1", "--skip-default-registry-fallback"},
			base,
			[]string{"--skip-default-registry-fallback has no meaning here: there are no mirrors"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, a, err := loadFlags(t, tt.env, append([]string{"/kaniko/executor"}, tt.argv...)...)
			if err != nil {
				t.Fatal(err)
			}
			got := want{c.Context, c.Dockerfile, c.Target, c.Dir, c.Destination, c.BuildArg, c.Cache, c.NoPush, c.CacheTTL, c.Verbosity, c.LogFormat}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			// The program executes itself, with the same arguments, in the environment that it has made.
			again, err := ParseArguments(append([]string{"/kaniko/executor"}, tt.argv...))
			if err != nil {
				t.Fatal(err)
			}
			if c2, err := again.Load(); err != nil || !slices.Equal(c2.Destination, c.Destination) {
				t.Errorf("executed again: %v, %v", c2, err)
			}
			if diff := cmp.Diff(tt.notes, a.Notes()); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFlagProblems(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		argv []string
		want string
	}{
		{"misspelt", nil, []string{"--destnation=x"}, "unknown flag --destnation (did you mean --destination?); --help lists the flags"},
		{"unlike anything", nil, []string{"--xyzzy-plugh-quux"}, "unknown flag --xyzzy-plugh-quux; --help lists the flags"},
		{"letter", nil, []string{"-x"}, "unknown flag -x; --help lists the flags"},
		{"one dash", nil, []string{"-context=."}, "-context: write --context"},
		{"no value", nil, []string{"--destination"}, "--destination: the value is missing"},
		{"not a boolean", nil, []string{"--cache=maybe"}, "--cache=maybe: write true or false"},
		{"boolean with a space", nil, []string{"--cache", "true"}, "unexpected argument true; every setting is a flag or a variable, and a boolean flag is written --name=true"},
		{
			"would be another image", nil,
			[]string{"--single-snapshot", "--materialize"},
			`--single-snapshot: not supported: every instruction is a layer, and what one removes stays in the layer below; build in one stage and COPY --from it into another
--materialize: not supported: a build leaves the container's root as it was`,
		},
		{"in the words of flags", nil, []string{"--cache"}, `--destination is not set: give the reference to push to, or --no-push=true
--cache=true needs --cache-repo where there is no --destination: a repository, or oci:DIRECTORY`},
		{"but for variables that are set", map[string]string{"KANIKO_CACHE_TTL": "5"}, []string{"--destination=R/a"}, `KANIKO_CACHE_TTL=5: not a duration; write one such as 90s, 30m or 1h30m
--destination=R/a: not an image reference; write HOST/REPOSITORY:TAG; the repository is in lower case`},
		{"push of nothing", nil, []string{"push", "-d", "r.example/a:1"}, "push takes one argument, the OCI layout or tarball to push"},
		{"kaniko's variables without a flag", map[string]string{"KANIKO_SINGLE_SNAPSHOT": "true", "KANIKO_CACHE_RUN_LAYERS": "false", "KANIKO_DESTINATION": "r.example/a:1"}, nil, `KANIKO_CACHE_RUN_LAYERS: set KANIKO_NO_CACHE=true instead
KANIKO_SINGLE_SNAPSHOT: not supported: every instruction is a layer, and what one removes stays in the layer below; build in one stage and COPY --from it into another`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := loadFlags(t, tt.env, append([]string{"executor"}, tt.argv...)...)
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(strings.Split(tt.want, "\n"), strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCommands(t *testing.T) {
	layout := t.TempDir()
	tarball := filepath.Join(layout, "image.tar")
	if err := os.WriteFile(tarball, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	type want struct {
		Mode                     Mode
		Layout, Tar, CacheDir    string
		Image, Destination       List
		Dockerfile               string
		Force, SkipPushCheck     bool
		Command                  Command
		Registry, User, Password string
		Stdin                    bool
	}
	tests := []struct {
		name string
		argv []string
		want want
	}{
		{"push a layout", []string{"executor", "push", layout, "-d", "r.example/a:1"}, want{Mode: ModePush, Layout: layout, Destination: List{"r.example/a:1"}, Dockerfile: "Dockerfile"}},
		{"push a tarball", []string{"executor", "--skip-push-permission-check", "push", tarball, "--destination=r.example/a:1"}, want{Mode: ModePush, Tar: tarball, Destination: List{"r.example/a:1"}, Dockerfile: "Dockerfile", SkipPushCheck: true}},
		{"index", []string{"executor", "index", "r.example/a@sha256:1", "", "r.example/a@sha256:2", "-d=r.example/a:1"}, want{Mode: ModeIndex, Image: List{"r.example/a@sha256:1", "r.example/a@sha256:2"}, Destination: List{"r.example/a:1"}, Dockerfile: "Dockerfile"}},
		{"warm", []string{"/kaniko/warmer", "-i", "busybox", "--image=debian:12", "-f"}, want{Mode: ModeWarm, Image: List{"busybox", "debian:12"}, CacheDir: "/cache", Dockerfile: "Dockerfile"}},
		{"warm by Dockerfile", []string{"warmer", "-d", "/src/Dockerfile", "-c/warm", "--force"}, want{Mode: ModeWarm, CacheDir: "/warm", Dockerfile: "/src/Dockerfile"}},
		{"login", []string{"executor", "login", "r.example", "-u", "me", "-p", "secret"}, want{Command: CommandLogin, Registry: "r.example", User: "me", Password: "secret"}},
		{"login by standard input", []string{"executor", "login", "--username=me", "r.example:5000", "--password-stdin"}, want{Command: CommandLogin, Registry: "r.example:5000", User: "me", Stdin: true}},
		{"version", []string{"executor", "version"}, want{Command: CommandVersion}},
		{"version flag", []string{"executor", "--version"}, want{Command: CommandVersion}},
		{"help", []string{"executor", "help", "push"}, want{Command: CommandHelp}},
		{"help letter", []string{"warmer", "-h"}, want{Command: CommandHelp}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			setEnv(t, nil)
			a, err := ParseArguments(tt.argv)
			if err != nil {
				t.Fatal(err)
			}
			got := want{Command: a.Command, Registry: a.Registry, User: a.Username, Password: a.Password, Stdin: a.PasswordStdin}
			if a.Command == CommandRun {
				c, err := a.Load()
				if err != nil {
					t.Fatal(err)
				}
				got.Mode, got.Layout, got.Tar, got.CacheDir, got.Image, got.Destination = c.Mode, c.OCILayoutPath, c.TarPath, c.CacheDir, c.Image, c.Destination
				got.Dockerfile, got.Force, got.SkipPushCheck = c.Dockerfile, c.Force, c.SkipPushPermissionCheck
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestCacheRunLayers: what shall not be taken from a cache is not.
func TestCacheRunLayers(t *testing.T) {
	c, _, err := loadFlags(t, nil, "executor", "--destination=r.example/a:1", "--cache", "--cache-run-layers=false")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(List{"true"}, c.NoCache); diff != "" {
		t.Errorf("KANIKO_NO_CACHE (-want +got):\n%s", diff)
	}
}

// TestCredentialHelpers: an empty value is none of them, as in kaniko, not all of them, as an empty variable.
func TestCredentialHelpers(t *testing.T) {
	for _, tt := range []struct {
		name string
		argv []string
		want Helpers
	}{
		{"not given", nil, nil},
		{"two", []string{"--credential-helpers=env", "--credential-helpers", "ecr"}, Helpers{"env", "ecr"}},
		{"none", []string{"--credential-helpers="}, Helpers{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _, err := loadFlags(t, nil, append([]string{"executor", "--destination=r.example/a:1"}, tt.argv...)...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, c.CredentialHelpers); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWantsInPlace(t *testing.T) {
	for _, tt := range []struct {
		name, env string
		argv      []string
		want      bool
	}{
		{"nothing", "", nil, false},
		{"variable", "inplace", nil, true},
		{"flag", "", []string{"--isolation=inplace"}, true},
		{"flag and value", "auto", []string{"--isolation", "inplace"}, true},
		{"flag before variable", "inplace", []string{"--isolation=namespace"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setEnv(t, map[string]string{"KANIKO_ISOLATION": tt.env})
			if got := WantsInPlace(append([]string{"executor"}, tt.argv...)); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// TestFlagNames: no two flags of one command line have one name or letter.
func TestFlagNames(t *testing.T) {
	for name, flags := range map[string][]Flag{
		"executor": append(Flags(), generalFlags()...), "warmer": warmerFlags(), "login": append(LoginFlags(), generalFlags()...),
	} {
		seen := map[string]bool{}
		for _, f := range flags {
			if seen[f.Name] || f.Short != "" && seen[f.Short] {
				t.Errorf("%s: --%s or -%s twice", name, f.Name, f.Short)
			}
			seen[f.Name], seen[f.Short] = true, true
		}
	}
	for name := range differences() {
		if !strings.Contains(helpNames(), " "+name+" ") {
			t.Errorf("a difference of --%s, which is no flag", name)
		}
	}
}

func helpNames() string {
	names := " "
	for _, f := range Flags() {
		names += f.Name + " "
	}
	return names
}

func FuzzArguments(f *testing.F) {
	for _, seed := range []string{"--destination=r/a:1\x00-c\x00.", "push\x00x", "-\x00--\x00-=", "warmer\x00-f", "login\x00-u", "--cache\x00--cache=\x00--=x"} {
		f.Add("executor\x00" + seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		a, err := ParseArguments(strings.Split(line, "\x00"))
		if a == nil {
			t.Fatalf("nothing, and %v", err)
		}
	})
}
