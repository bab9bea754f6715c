// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// setEnv gives the test exactly the variables of env among those that the
// configuration looks at. Those of the caller are hidden by being empty.
func setEnv(t *testing.T, env map[string]string) {
	t.Helper()
	hide := []string{"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"}
	for _, v := range Variables() {
		hide = append(hide, v.Name)
	}
	for _, entry := range os.Environ() {
		key, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(key, Prefix+"_") {
			hide = append(hide, key)
		} else if value == "" {
			t.Setenv(key, value) // Load removes it; the test puts it back.
		}
	}
	for _, key := range hide {
		t.Setenv(key, "")
	}
	for key, value := range env {
		t.Setenv(key, value)
	}
}

func load(t *testing.T, env map[string]string) *Config {
	t.Helper()
	setEnv(t, env)
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestEmptyIsUnset sets every variable to the empty string, as a Task whose
// parameters all have their default does: nothing may change by that.
func TestEmptyIsUnset(t *testing.T) {
	want := load(t, map[string]string{"KANIKO_DESTINATION": "r.example/a:1"})

	env := map[string]string{}
	for _, v := range Variables() {
		env[v.Name] = ""
	}
	env["KANIKO_DESTINATION"] = "r.example/a:1"
	if diff := cmp.Diff(want, load(t, env)); diff != "" {
		t.Errorf("empty variables change the configuration (-unset +empty):\n%s", diff)
	}
	if want.Compression != Gzip || want.CompressionLevel != -1 || want.Dockerfile != "Dockerfile" || want.ShmSize != 64<<20 {
		t.Errorf("defaults are missing: %+v", want)
	}
}

// TestDefaultsAreValid sets every variable to its documented default.
func TestDefaultsAreValid(t *testing.T) {
	want := load(t, map[string]string{"KANIKO_DESTINATION": "r.example/a:1"})
	env := map[string]string{}
	for _, v := range Variables() {
		env[v.Name] = v.Default
	}
	env["KANIKO_DESTINATION"] = "r.example/a:1"
	if diff := cmp.Diff(want, load(t, env)); diff != "" {
		t.Errorf("writing the defaults out changes the configuration:\n%s", diff)
	}
}

func TestValues(t *testing.T) {
	c := load(t, map[string]string{
		"KANIKO_DESTINATION":          "  localhost:5000/a/b:1\n\nr.example/c:2\r\n",
		"KANIKO_CONTEXT":              "dir:///src",
		"KANIKO_BUILD_ARG":            "URL=https://h:1/a,b;c=d  \nFROM_ENV\nMISSING\nEMPTY=",
		"FROM_ENV":                    "seen",
		"KANIKO_LABEL":                `["text=two\nlines","bare"]`,
		"KANIKO_CUSTOM_PLATFORM":      "linux/arm64",
		"KANIKO_ADD_HOST":             "db=10.0.0.1\nsix:fe80::1\nsq=[::1]",
		"KANIKO_SHM_SIZE":             "1g",
		"KANIKO_ULIMIT":               "nofile=10:20\ncore=-1",
		"KANIKO_RUN_TIMEOUT":          "90m",
		"KANIKO_REGISTRY_CERTIFICATE": "r.example:5000=/ca.pem",
		"KANIKO_REGISTRY_CLIENT_CERT": "r.example=/c.pem,/k.pem",
		"KANIKO_REGISTRY_MAP":         "quay.io=m1.example;quay.io=m2.example/q\nghcr.io=m1.example",
		"SOURCE_DATE_EPOCH":           "1700000000",
		"HTTP_PROXY":                  "http://u:p@proxy:1",
		"no_proxy":                    "localhost",
	})
	want := &Config{
		Source: Source{
			Mode: ModeBuild, Context: "/src", Dockerfile: "Dockerfile",
			BuildArg: Pairs{
				{Key: "URL", Value: "https://h:1/a,b;c=d  "},
				{Key: "FROM_ENV", Value: "seen"},
				{Key: "EMPTY"},
			},
			Label:    Pairs{{Key: "text", Value: "two\nlines"}, {Key: "bare", Bare: true}},
			Platform: List{"linux/arm64"}, CustomPlatform: "linux/arm64",
		},
		Output:     Output{Destination: List{"localhost:5000/a/b:1", "r.example/c:2"}},
		Form:       Form{Compression: Gzip, CompressionLevel: -1, ImageFormat: OCI},
		LayerCache: LayerCache{CacheTTL: 336 * time.Hour, CacheMounts: CacheMountsDir, CacheMountsMaxSize: 2 << 30},
		Run: Run{
			Isolation: IsolationAuto, Dir: DefaultDir, Network: NetworkDefault,
			AddHost: Hosts{
				{"db", netip.MustParseAddr("10.0.0.1")},
				{"six", netip.MustParseAddr("fe80::1")},
				{"sq", netip.MustParseAddr("::1")},
			},
			ShmSize: 1 << 30, Ulimit: Ulimits{{"nofile", 10, 20}, {"core", -1, -1}}, RunTimeout: 90 * time.Minute,
		},
		Registry: Registry{
			RegistryCertificate: HostFiles{"r.example:5000": "/ca.pem"},
			RegistryClientCert:  HostPairs{"r.example": {"/c.pem", "/k.pem"}},
			RegistryMap:         HostLists{"quay.io": {"m1.example", "m2.example/q"}, "ghcr.io": {"m1.example"}},
		},
		Log: Log{LogFormat: LogText, Verbosity: Info},
		Environment: Environment{
			SourceDateEpoch: Epoch{1700000000, true},
			GitPullMethod:   "https",
			HTTPProxy:       "http://u:p@proxy:1", NoProxy: "localhost",
			ProxyArgs: Pairs{{Key: "HTTP_PROXY", Value: "http://u:p@proxy:1"}, {Key: "no_proxy", Value: "localhost"}},
		},
	}
	if diff := cmp.Diff(want, c, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := c.Epoch(); got == nil || got.Unix() != 1700000000 {
		t.Errorf("epoch = %v", got)
	}
	if got := c.Label.Map(); got["text"] != "two\nlines" {
		t.Errorf("labels = %v", got)
	}
}

func TestReproducibleIsEpochZero(t *testing.T) {
	c := load(t, map[string]string{"KANIKO_NO_PUSH": "true", "KANIKO_REPRODUCIBLE": "true"})
	if got := c.Epoch(); got == nil || got.Unix() != 0 {
		t.Errorf("epoch = %v, want 1970", got)
	}
	if got := load(t, map[string]string{"KANIKO_NO_PUSH": "true"}).Epoch(); got != nil {
		t.Errorf("epoch = %v, want none", got)
	}
}

func TestNamesOfOthersAreLeftAlone(t *testing.T) {
	load(t, map[string]string{
		"KANIKO_NO_PUSH":                "true",
		"KANIKO_SERVICE_HOST":           "10.0.0.1",
		"KANIKO_SERVICE_PORT":           "80",
		"KANIKO_SERVICE_PORT_HTTP":      "80",
		"KANIKO_PORT":                   "tcp://10.0.0.1:80",
		"KANIKO_PORT_80_TCP_ADDR":       "10.0.0.1",
		"KANIKO_GO_WEB_SERVICE_HOST":    "10.0.0.1",
		"KANIKO_GO_WEB_PORT_80_TCP":     "tcp://10.0.0.1:80",
		"KANIKO_R_EXAMPLE_COM_USER":     "u",
		"KANIKO_R_EXAMPLE_COM_PASSWORD": "p",
	})
}

func TestProblems(t *testing.T) {
	const dest = "r.example/a:1"
	tests := []struct {
		name string
		env  map[string]string
		want string // whole error, line by line
	}{
		{"no destination", nil, `KANIKO_DESTINATION is not set: give the reference to push to, or KANIKO_NO_PUSH=true`},
		{
			"everything at once",
			map[string]string{
				"KANIKO_DESTINATIONS": dest, "KANIKO_CACHE_COPY_LAYERS": "true", "KANIKO_XYZZY_PLUGH": "1",
				"KANIKO_MODE": "cache-burn", "KANIKO_DRYRUN": "maybe", "KANIKO_COMPRESSION": "xz",
				"KANIKO_COMPRESSION_LEVEL": "fast", "KANIKO_ADD_HOST": "a\nb=c", "KANIKO_RUN_TIMEOUT": "5",
			},
			`unknown variables: KANIKO_DESTINATIONS (did you mean KANIKO_DESTINATION?), KANIKO_XYZZY_PLUGH; see docs/configuration.md
KANIKO_MODE=cache-burn: not a known value; supported: build, check, warm, push, index, cache-list, cache-prune
KANIKO_DRYRUN=maybe: write true or false
KANIKO_COMPRESSION=xz: not a known value; supported: gzip, zstd
KANIKO_COMPRESSION_LEVEL=fast: write a whole number
KANIKO_ADD_HOST: "a": write NAME=ADDRESS
KANIKO_ADD_HOST: "b=c": the part after the name is not an IP address
KANIKO_RUN_TIMEOUT=5: not a duration; write one such as 90s, 30m or 1h30m
KANIKO_DESTINATION is not set: give the reference to push to, or KANIKO_NO_PUSH=true`,
		},
		{
			"references",
			map[string]string{"KANIKO_DESTINATION": "r.example/A:1\na,b\nhttps://r.example/a\nr.example/a@sha256:" + strings.Repeat("0", 64)},
			`KANIKO_DESTINATION=r.example/A:1: not an image reference; write HOST/REPOSITORY:TAG; the repository is in lower case
KANIKO_DESTINATION=a,b: not an image reference; write HOST/REPOSITORY:TAG; several go one a line
KANIKO_DESTINATION=https://r.example/a: not an image reference; leave out the scheme
KANIKO_DESTINATION=r.example/a@sha256:0000000000000000000000000000000000000000000000000000000000000000: the digest is not known before the build; give a tag`,
		},
		{
			"what does not exist yet",
			map[string]string{
				"KANIKO_DESTINATION": dest, "KANIKO_CONTEXT": "ftp://u:secret@h/r", "KANIKO_DOCKERFILE": "git://h/Dockerfile",
				"KANIKO_DIGEST_FILE": "https://h/d",
			},
			`KANIKO_CONTEXT=ftp://xxxxx@h/r: ftp:// is no kind of build context; write a directory, tar://FILE, tar://stdin, git://, ssh://, https://, s3:// or gs://
KANIKO_DOCKERFILE=git://h/Dockerfile: a Dockerfile by git is not supported; give a path or an http or https URL
KANIKO_DIGEST_FILE=https://h/d: writing by https is not supported yet; give a path`,
		},
		{
			"contradictions",
			map[string]string{
				"KANIKO_DESTINATION": dest, "KANIKO_PLATFORM": "linux/amd64", "KANIKO_CUSTOM_PLATFORM": "linux/arm64",
				"KANIKO_COMPRESSION": "zstd", "KANIKO_IMAGE_FORMAT": "docker", "KANIKO_TAR_PATH": "/t", "KANIKO_DIGEST_FILE": "/./t",
				"KANIKO_COMPRESSION_LEVEL": "23", "KANIKO_SKIP_DEFAULT_REGISTRY_FALLBACK": "true",
			},
			`KANIKO_CUSTOM_PLATFORM=linux/arm64: KANIKO_PLATFORM says linux/amd64; set one of them
KANIKO_DIGEST_FILE=/./t: the same file as KANIKO_TAR_PATH
KANIKO_COMPRESSION=zstd: Docker's media types have no zstd; use gzip, or KANIKO_IMAGE_FORMAT=oci
KANIKO_COMPRESSION=zstd: the file of KANIKO_TAR_PATH cannot hold zstd layers; use gzip, or KANIKO_OCI_LAYOUT_PATH
KANIKO_COMPRESSION_LEVEL=23: zstd has the levels 1 to 22, and -1 for a good default
KANIKO_SKIP_DEFAULT_REGISTRY_FALLBACK=true: there are no mirrors; set KANIKO_REGISTRY_MIRROR or KANIKO_REGISTRY_MAP`,
		},
		{
			"a push that does not push",
			map[string]string{"KANIKO_MODE": "push", "KANIKO_NO_PUSH": "true", "KANIKO_OCI_LAYOUT_PATH": "/l"},
			"KANIKO_NO_PUSH=true contradicts KANIKO_MODE=push, which does nothing but push",
		},
		{
			"an index that is not pushed",
			map[string]string{"KANIKO_MODE": "index", "KANIKO_NO_PUSH": "true", "KANIKO_IMAGE": "r/a@sha256:0"},
			"KANIKO_NO_PUSH=true contradicts KANIKO_MODE=index, which does nothing but push",
		},
		{
			"single values",
			map[string]string{
				"KANIKO_DESTINATION": dest, "KANIKO_CONTEXT_SUB_PATH": "../up", "KANIKO_IGNORE_PATH": "rel\n/", "KANIKO_DIR": "work",
				"KANIKO_PLATFORM": "arm64", "KANIKO_HOSTNAME": "a b", "KANIKO_SHM_SIZE": "lots", "KANIKO_ULIMIT": "files=1\nnofile=2:1\ncpu=x",
				"KANIKO_RUN_TIMEOUT": "-1s", "KANIKO_PUSH_RETRY": "-1", "KANIKO_IMAGE_DOWNLOAD_RETRY": "99999999999999999999",
				"KANIKO_INSECURE_REGISTRY": "http://r.example", "KANIKO_REGISTRY_MIRROR": "h/UP", "KANIKO_REGISTRY_CERTIFICATE": "r.example",
				"KANIKO_REGISTRY_CLIENT_CERT": "r.example=one", "KANIKO_REGISTRY_MAP": "quay.io", "SOURCE_DATE_EPOCH": "yesterday",
			},
			`KANIKO_SHM_SIZE=lots: not a size; write bytes, or a number with k, m or g
KANIKO_ULIMIT: "files=1": "files" is no limit; there are: as, core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack
KANIKO_ULIMIT: "nofile=2:1": the soft limit is above the hard one
KANIKO_ULIMIT: "cpu=x": write NAME=SOFT or NAME=SOFT:HARD, with numbers
KANIKO_REGISTRY_CERTIFICATE: "r.example": write HOST=FILE
KANIKO_REGISTRY_CLIENT_CERT: "r.example=one": write HOST=CERTIFICATE,KEY
KANIKO_REGISTRY_MAP: "quay.io": write HOST=MIRROR
KANIKO_IMAGE_DOWNLOAD_RETRY=99999999999999999999: the number is too large
SOURCE_DATE_EPOCH=yesterday: not a number of seconds since 1970
KANIKO_CONTEXT_SUB_PATH=../up: not inside the context; give a path without ..
KANIKO_IGNORE_PATH=rel: not an absolute path below /
KANIKO_IGNORE_PATH=/: not an absolute path below /
KANIKO_PLATFORM=arm64: not a platform; write os/arch or os/arch/variant, such as linux/arm64
KANIKO_DIR=work: not an absolute path below /
KANIKO_HOSTNAME="a b": not a host name
KANIKO_RUN_TIMEOUT=-1s: negative; 0s is no limit
KANIKO_INSECURE_REGISTRY=http://r.example: leave out http://
KANIKO_REGISTRY_MIRROR=h/UP: "UP" cannot begin the name of a repository
KANIKO_PUSH_RETRY=-1: write a number from 0 to 100`,
		},
		{
			"secrets stay secret",
			map[string]string{
				"KANIKO_DESTINATION": dest, "KANIKO_BUILD_ARG": "=hunter2\na b=hunter2", "DOCKER_AUTH_CONFIG": "hunter2",
				"HTTP_PROXY": "http://u:hunter2@[bad", "KANIKO_CONTEXT": "https://u:hunter2@h:bad/x",
			},
			`KANIKO_BUILD_ARG: item 1: no key before the value; write KEY=VALUE, one a line
KANIKO_BUILD_ARG: item 2: no key before the value; write KEY=VALUE, one a line
KANIKO_CONTEXT=https://xxxxx@h:bad/x: not a URL
DOCKER_AUTH_CONFIG: not JSON; it holds the content of a config.json
HTTP_PROXY: not a URL; write http://HOST:PORT`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			setEnv(t, tt.env)
			_, err := Load()
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(strings.Split(tt.want, "\n"), strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCredentialsFile(t *testing.T) {
	dir := t.TempDir()
	write := func(parts ...string) string {
		file := filepath.Join(append([]string{dir}, parts...)...)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	docker, secret := write("docker", "config.json"), write("secret", ".dockerconfigjson")
	single, home := write("auth.json"), write("home", ".docker", "config.json")
	podman := write("run", "containers", "auth.json")
	empty := filepath.Join(dir, "home") // a directory with neither file
	tests := []struct {
		name string
		env  Environment
		want string
	}{
		{"nothing", Environment{}, ""},
		{"directory", Environment{DockerConfig: filepath.Dir(docker), RegistryAuthFile: single}, docker},
		{"kubernetes secret", Environment{DockerConfig: filepath.Dir(secret)}, secret},
		{"file", Environment{DockerConfig: single}, single},
		{"directory without a file", Environment{DockerConfig: empty, RegistryAuthFile: single}, single},
		{"file that is missing", Environment{RegistryAuthFile: "/none", Home: empty}, home},
		{"podman", Environment{Home: "/none", XDGRuntimeDir: filepath.Join(dir, "run")}, podman},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &Config{Environment: tt.env}
			if got := c.CredentialsFile(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzList(f *testing.F) {
	for _, seed := range []string{"", "a\nb", `["a","b\nc"]`, "[1]", "a,b:c\r\n", " \n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		var l List
		if err := l.Decode(value); err != nil && !strings.HasPrefix(strings.TrimSpace(value), "[") {
			t.Fatalf("only what looks like JSON may be none: %v", err)
		}
		for _, item := range l {
			if item == "" || item != strings.TrimSpace(item) {
				t.Errorf("item %q of %q", item, value)
			}
		}
	})
}

// FuzzDecoders holds that no value makes a decoder panic or print its whole
// input on several lines.
func FuzzDecoders(f *testing.F) {
	for _, seed := range []string{"a=b", "nofile=1:2", "h=c,k", "a=b;c=d", "1k", "9223372036854775807g", "h=[::1]", "\x00=\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		decoders := []interface{ Decode(string) error }{
			new(Pairs), new(Hosts), new(Size), new(Epoch), new(Ulimits), new(HostFiles), new(HostPairs), new(HostLists), new(Mode), new(Secrets), new(Agents),
		}
		for _, d := range decoders {
			err := d.Decode(value)
			var several interface{ Unwrap() []error }
			switch {
			case err == nil:
			case errors.As(err, &several):
				for _, err := range several.Unwrap() {
					if strings.Contains(err.Error(), "\n") {
						t.Errorf("%T: an error of several lines: %q", d, err)
					}
				}
			case strings.Contains(err.Error(), "\n"):
				t.Errorf("%T: an error of several lines: %q", d, err)
			}
		}
	})
}
