// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBuildContexts(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	c := load(t, map[string]string{
		"KANIKO_NO_PUSH": "true",
		"KANIKO_BUILD_CONTEXT": strings.Join([]string{
			"base=../base dir ",
			"docker.io/library/alpine:latest=docker-image://r.example/alpine:3@" + digest,
			"alpine::linux/arm64/v8=docker-image://scratch",
			"r.example/team/app:1::linux/arm/v7=oci-layout:///srv/layout@" + digest,
			"tagged=oci-layout://layout:v1",
			"src=https://u:p@h.example/r.git?ref=main&subdir=a=b",
			"scp=git@h.example:r.git#main",
			"ssh=ssh://git@h.example/r",
			"file=http://h.example/f.tar.gz",
			"dots=./github.com/a/b",
		}, "\n"),
	})
	want := map[string]string{
		"base":                               "../base dir",
		"alpine":                             "docker-image://r.example/alpine:3@" + digest,
		"alpine::linux/arm64":                "docker-image://scratch",
		"r.example/team/app:1::linux/arm/v7": "oci-layout:///srv/layout@" + digest,
		"tagged":                             "oci-layout://layout:v1",
		"src":                                "https://u:p@h.example/r.git?ref=main&subdir=a=b",
		"scp":                                "git@h.example:r.git#main",
		"ssh":                                "ssh://git@h.example/r",
		"file":                               "http://h.example/f.tar.gz",
		"dots":                               "./github.com/a/b",
	}
	if diff := cmp.Diff(want, c.BuildContext.Map()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBuildContextProblems(t *testing.T) {
	tests := []struct{ item, want string }{
		{"Base=.", `KANIKO_BUILD_CONTEXT: Base=.: not the name of a stage or an image`},
		{"scratch=.", `KANIKO_BUILD_CONTEXT: scratch=.: scratch cannot be replaced; choose another name`},
		{"docker.io/library/scratch:latest=.", `KANIKO_BUILD_CONTEXT: docker.io/library/scratch:latest=.: scratch cannot be replaced; choose another name`},
		{"context=.", `KANIKO_BUILD_CONTEXT: context=.: context cannot be replaced; choose another name`},
		{"a::arm64=.", `KANIKO_BUILD_CONTEXT: a::arm64=.: after :: not a platform; write os/arch or os/arch/variant, such as linux/arm64`},
		{"a::windows/amd64=.", `KANIKO_BUILD_CONTEXT: a::windows/amd64=.: after :: only linux images can be built`},
		{"a=.\nalpine=.\nalpine:latest=b", `KANIKO_BUILD_CONTEXT: alpine=b: an earlier item has the same name`},
		{"a", `KANIKO_BUILD_CONTEXT: a: no value; write NAME=VALUE`},
		{"a= ", `KANIKO_BUILD_CONTEXT: a="": no value; write NAME=VALUE`},
		{"https://u:hunter2@h.example/r.git", `KANIKO_BUILD_CONTEXT: https://xxxxx@h.example/r.git: not the name of a stage or an image`},
		{"a=docker-image://R/UP", `KANIKO_BUILD_CONTEXT: a=docker-image://R/UP: not an image reference; write docker-image://HOST/REPOSITORY:TAG; the repository is in lower case`},
		{"a=docker-image://", `KANIKO_BUILD_CONTEXT: a=docker-image://: not an image reference; write docker-image://HOST/REPOSITORY:TAG`},
		{"a=oci-layout:///srv", `KANIKO_BUILD_CONTEXT: a=oci-layout:///srv: it does not say which image of the layout; write oci-layout://DIR@DIGEST or oci-layout://DIR:TAG`},
		{"a=oci-layout:///srv@sha256:1", `KANIKO_BUILD_CONTEXT: a=oci-layout:///srv@sha256:1: not a directory and a digest; write oci-layout://DIR@DIGEST or oci-layout://DIR:TAG`},
		{"a=oci-layout:///s:r/v", `KANIKO_BUILD_CONTEXT: a=oci-layout:///s:r/v: not a directory and a tag; write oci-layout://DIR@DIGEST or oci-layout://DIR:TAG`},
		{"a=github.com/o/r", `KANIKO_BUILD_CONTEXT: a=github.com/o/r: a directory or a repository? Write ./github.com/... or https://github.com/....git`},
		{"a=https://u:hunter2@h.example/r.git?nonsense=1", `KANIKO_BUILD_CONTEXT: a="https://xxxxx@h.example/r.git?xxxxx": not a git URL: unexpected query "nonsense"`},
		{"a=https://u:hunter2@h:bad/f", `KANIKO_BUILD_CONTEXT: a=https://xxxxx@h:bad/f: not a URL`},
		{"a=https:///f", `KANIKO_BUILD_CONTEXT: a=https:///f: not a URL`},
		{"a=git://u:hunter2@h:bad/r", `KANIKO_BUILD_CONTEXT: a=git://xxxxx@h:bad/r: not a git URL`},
		{"a=s3://bucket/x", `KANIKO_BUILD_CONTEXT: a=s3://bucket/x: s3:// is no kind of build context; write a directory, docker-image://REF, oci-layout://DIR@DIGEST, or a git or http URL`},
	}
	for _, tt := range tests {
		t.Run(tt.item, func(t *testing.T) {
			setEnv(t, map[string]string{"KANIKO_NO_PUSH": "true", "KANIKO_BUILD_CONTEXT": tt.item})
			_, err := Load()
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestPlatforms(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		want string // the error; "" for none
	}{
		{"several", map[string]string{"KANIKO_PLATFORM": "linux/amd64\nlinux/arm64\nlinux/arm/v7\nlinux/arm/v6"}, ""},
		{"tarball of one", map[string]string{"KANIKO_PLATFORM": "linux/arm64", "KANIKO_TAR_PATH": "/t"}, ""},
		{"layout of several", map[string]string{"KANIKO_PLATFORM": "linux/amd64\nlinux/arm64", "KANIKO_OCI_LAYOUT_PATH": "/l"}, ""},
		{
			"tarball of several",
			map[string]string{"KANIKO_PLATFORM": "linux/amd64\nlinux/arm64", "KANIKO_TAR_PATH": "/t"},
			`KANIKO_TAR_PATH=/t: the file holds one platform and KANIKO_PLATFORM has 2; use KANIKO_OCI_LAYOUT_PATH`,
		},
		{
			"twice",
			map[string]string{"KANIKO_PLATFORM": "linux/arm64\nlinux/arm64/v8"},
			`KANIKO_PLATFORM=linux/arm64/v8: the same platform as linux/arm64 in an earlier item`,
		},
		{
			"docker's form",
			map[string]string{"KANIKO_PLATFORM": "linux/amd64,linux/arm64"},
			`KANIKO_PLATFORM=linux/amd64,linux/arm64: not a platform; write os/arch or os/arch/variant, such as linux/arm64; several go one a line`,
		},
		{
			"not linux",
			map[string]string{"KANIKO_PLATFORM": "linux/amd64\nwindows/amd64"},
			`KANIKO_PLATFORM=windows/amd64: only linux images can be built`,
		},
		{
			"older name beside several",
			map[string]string{"KANIKO_PLATFORM": "linux/amd64\nlinux/arm64", "KANIKO_CUSTOM_PLATFORM": "linux/amd64"},
			`KANIKO_CUSTOM_PLATFORM=linux/amd64: KANIKO_PLATFORM says "linux/amd64 linux/arm64"; set one of them`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.env["KANIKO_NO_PUSH"] = "true"
			setEnv(t, tt.env)
			_, err := Load()
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestCheckNeedsNoDestination holds that nothing but the mode is needed.
func TestCheckNeedsNoDestination(t *testing.T) {
	c := load(t, map[string]string{"KANIKO_MODE": "check"})
	if c.Mode != ModeCheck || c.NoPush || len(c.Destination) != 0 {
		t.Errorf("got %+v", c)
	}
}

// FuzzBuildContexts holds that normalising is done once and for all, and that
// every problem is one line.
func FuzzBuildContexts(f *testing.F) {
	for _, seed := range []string{"a=.", "alpine:latest::linux/arm64/v8=docker-image://x", "a=git@h:r?ref=x", "a=https://u:p@h/r.git#x:y", "a=oci-layout://d@sha256:1", "\x00=\n", "0@://0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		c := &Config{}
		if c.BuildContext.Decode(value) != nil {
			return
		}
		normalizeContexts(c.BuildContext)
		once := c.BuildContext.Map()
		normalizeContexts(c.BuildContext)
		if diff := cmp.Diff(once, c.BuildContext.Map()); diff != "" {
			t.Errorf("%q changes when it is normalised again:\n%s", value, diff)
		}
		err := c.checkContexts()
		if err != nil && strings.Count(err.Error(), "\n") >= len(c.BuildContext) {
			t.Errorf("%q: more lines than items: %v", value, err)
		}
	})
}
