// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseGitURL(t *testing.T) {
	yes, no := true, false
	for _, tt := range []struct {
		url    string
		want   GitURL
		remote string
	}{
		{"https://h/x.git", GitURL{}, "https://h/x.git"},
		{"https://h/x.git#r:a/../b/./c", GitURL{Ref: "r", Subdir: "b/c"}, "https://h/x.git"},
		{"https://h/x.git#:../../d", GitURL{Subdir: "d"}, "https://h/x.git"},
		{"https://u:secret@h:8443/a%20b/x.git?branch=b&subdir=d", GitURL{Ref: "refs/heads/b", Subdir: "d"}, "https://h:8443/a%20b/x.git"},
		{"http://[::1]:80/x.git?tag=t&submodules=0&keep-git-dir", GitURL{Ref: "refs/tags/t", Submodules: &no, KeepGitDir: &yes}, "http://[::1]:80/x.git"},
		{"git@h:a/x.git?ref=r&commit=abc&mtime=commit", GitURL{Ref: "r", Checksum: "abc", MTime: "commit"}, "ssh://h/a/x.git"},
		{"ssh://git@h:2222/~u/x", GitURL{}, "ssh://h:2222/~u/x"},
		{"git://h/x#v1.0", GitURL{Ref: "v1.0"}, "git://h/x"},
		{"github.com/o/r#main", GitURL{Ref: "main", Bare: true}, "https://github.com/o/r"},
		{"https://h/x.git?ref=r&checksum=abc&fetch-by-commit=true", GitURL{Ref: "r", Checksum: "abc", FetchByCommit: true}, "https://h/x.git"},
	} {
		got, isGit, err := ParseGitURL(tt.url)
		if err != nil || !isGit {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		if diff := cmp.Diff(&tt.want, got, cmpopts.IgnoreUnexported(GitURL{})); diff != "" {
			t.Errorf("%s: %s", tt.url, diff)
		}
		if got.Redacted() != tt.remote {
			t.Errorf("%s: remote is %s", tt.url, got.Redacted())
		}
	}
}

func TestParseGitURLFails(t *testing.T) {
	for _, tt := range []struct {
		url   string
		isGit bool
	}{
		{"https://h/x", false},
		{"./x.git", false},
		{"/x.git", false},
		{"file:///x.git", false},
		{"ext::sh -c x", false},
		{"https://u:secret word@h/x.git", false},
		{"https://u:secret%0ah/x.git", false},
		{"https:///x.git", true},
		{"https://h:99999/x.git", true},
		{"ssh://-oProxyCommand=x/y.git", true},
		{"ssh://-l@h/y.git", true},
		{"-x@h:y.git", true},
		{"git@h:-oX", true},
		{"https://h/a%0ab.git", true},
		{"https://h/x.git?key=secret", true},
		{"https://h/x.git?ref=a&ref=b", true},
		{"https://h/x.git?ref=a#b", true},
		{"https://h/x.git?branch=a&tag=b", true},
		{"https://h/x.git?mtime=now", true},
		{"https://h/x.git#--upload-pack=x", true},
		{"https://h/x.git#-x", true},
		{"https://h/x.git#refs/heads/../../config", true},
		{"https://h/x.git#a..b", true},
		{"https://h/x.git#a@%7bb", true},
		{"https://h/x.git#a.lock", true},
		{"https://h/x.git#a%0db", true},
		{"https://h/x.git#a b", true},
		{"https://h/x.git#" + strings.Repeat("a", 1025), true},
		{"https://h/x.git#" + strings.Repeat("a", 5000), false},
	} {
		u, isGit, err := ParseGitURL(tt.url)
		if err == nil {
			t.Errorf("%s: %+v", tt.url, u)
			continue
		}
		if isGit != tt.isGit {
			t.Errorf("%s: is git: %v, %v", tt.url, isGit, err)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", tt.url, err)
		}
	}
}

func TestSibling(t *testing.T) {
	for _, tt := range []struct{ base, url, want string }{
		{"https://h/a/b.git", "../c.git", "https://h/a/c.git"},
		{"https://h/a/b.git", "../../c.git", "https://h/c.git"},
		{"ssh://h/a/b.git/", "./c.git", "ssh://h/a/b.git/c.git"},
		{"https://h/a/b.git", "./../c d.git", "https://h/a/c%20d.git"},
		{"https://h/b.git", "../../c.git", ""},
		{"https://h/b.git", "https://i/c", "https://i/c"},
		{"https://h/b.git", "c.git", ""},
		{"git@h:a/b.git", "../c.git", "ssh://h/a/c.git"},
		{"git@h:b.git", "../c.git", ""},
	} {
		u, _, err := ParseGitURL(tt.base)
		if err != nil {
			t.Fatal(err)
		}
		r, err := u.remote.sibling(tt.url)
		if (err != nil) != (tt.want == "") || err == nil && r.String() != tt.want {
			t.Errorf("%s, %s: %s, %v", tt.base, tt.url, r, err)
		}
	}
}

func FuzzParseGitURL(f *testing.F) {
	for _, s := range []string{
		"https://h/x.git#r:d", "github.com/a/b", "git@h:a/b.git?ref=r#x", "ssh://u@h:22/x", "http://[::1]/x.git?tag=t",
		"https://h/x.git?submodules&keep-git-dir=maybe", "git://h:1/\x00", "https://h%2fi/x.git",
	} {
		f.Add(s, "../c.git")
	}
	f.Fuzz(func(t *testing.T, s, sub string) {
		const secret = "s3cr3tp4ss"
		with := s
		if i := strings.Index(s, "://"); i >= 0 {
			with = s[:i+3] + "user:" + secret + "@" + s[i+3:]
		}
		u, _, err := ParseGitURL(with)
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%q: %v", with, err)
			}
			return
		}
		if strings.Contains(u.Redacted(), secret) && !strings.Contains(u.remote.path, secret) && !strings.Contains(u.remote.host, secret) {
			t.Errorf("%q: %s", with, u.Redacted())
		}
		if strings.HasPrefix(u.Ref, "-") || strings.Contains(u.Ref, "..") || strings.HasPrefix(u.Subdir, "/") || strings.Contains("/"+u.Subdir+"/", "/../") {
			t.Errorf("%q: ref %q, subdir %q", with, u.Ref, u.Subdir)
		}
		if ep := u.remote.endpoint(); strings.HasPrefix(ep.Host, "-") || strings.Contains(ep.User.String(), ":") || strings.ContainsAny(ep.String(), "\r\n") {
			t.Errorf("%q: endpoint %q", with, ep)
		}
		if r, err := u.remote.sibling(sub); err == nil {
			if strings.HasPrefix(sub, ".") && r.origin() != u.remote.origin() {
				t.Errorf("%q leads from %q to %q", sub, u.remote, r)
			}
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%v", err)
		}
	})
}
