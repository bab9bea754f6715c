// SPDX-License-Identifier: Apache-2.0

package dockerfile

import "testing"

func TestRemoteSources(t *testing.T) {
	for source, want := range map[string]string{
		"a/b": "", "http:/x": "", "github.com/x/y": "", "github.com/x/y.git": "", "ftp://x/y": "", "a@b": "", "./git@x:y": "",
		"HTTPS://x/y": "", "../x@y:z": "",
		"http://x/y": "url", "https://x/y.git/z": "url", "https://x/y.git%20": "url",
		"https://x/y.git": "git", "https://x/y.git#main:sub": "git", "https://x/y.git?ref=v1": "git",
		"git://x/y": "git", "ssh://git@x/y": "git", "git@x:y": "git", "HTTPS://x/y.git": "git",
		"https://x/y.git?wrong=1": "error", "https://x/y.git?ref=a&tag=b": "error", "https://x/y.git?submodules=maybe": "error",
	} {
		got := ""
		_, isGit, err := GitSource(source)
		switch {
		case err != nil:
			got = "error"
		case isGit:
			got = "git"
		case HTTPSource(source):
			got = "url"
		}
		if got != want {
			t.Errorf("%q is %q, want %q", source, got, want)
		}
	}
}

func FuzzGitSource(f *testing.F) {
	for _, seed := range []string{
		"https://user:pass@x/y.git?ref=a&subdir=b&submodules=0#c:d", "git@x:y?tag=v1", "ssh://x:22/~/y", "github.com/x#:", "git://[::1]:1/y#%",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, source string) {
		ref, isGit, err := GitSource(source)
		if isGit && HTTPSource(source) {
			t.Errorf("%q is two things", source)
		}
		if isGit && err == nil && (ref == nil || ref.Remote == "") {
			t.Errorf("%q is a repository nowhere", source)
		}
	})
}
