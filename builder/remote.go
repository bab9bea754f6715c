// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/kaniko-go/kaniko-go/builder/internal/copy"
	"github.com/kaniko-go/kaniko-go/builder/internal/fetch"
	"github.com/kaniko-go/kaniko-go/builder/internal/plan"
	"github.com/kaniko-go/kaniko-go/builder/internal/store"
	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// remotes fetches what ADD and named contexts name by URL. The same thing is fetched once in a build.
type remotes struct {
	disk       *store.Store
	secrets    map[string][]byte
	agents     map[string]sshAgent
	knownHosts fetch.KnownHosts
	now        func() time.Time
	// keepGitDir is what BUILDKIT_CONTEXT_KEEP_GIT_DIR asks for, of contexts.
	keepGitDir *bool
	// say writes a line into the log.
	say func(string)

	mu   sync.Mutex
	done map[string]*remote
}

// remote is one thing that is fetched: a file or a directory, and its time.
type remote struct {
	once  sync.Once
	inode *tree.Inode
	time  time.Time
	err   error
}

// get fetches what key stands for, once.
func (f *remotes) get(key string, do func(*remote) error) (*remote, error) {
	f.mu.Lock()
	if f.done == nil {
		f.done = map[string]*remote{}
	}
	r := f.done[key]
	if r == nil {
		r = &remote{}
		f.done[key] = r
	}
	f.mu.Unlock()
	r.once.Do(func() { r.err = do(r) })
	return r, r.err
}

// file fetches a file.
func (f *remotes) file(ctx context.Context, url, checksum string) (*remote, error) {
	return f.get(fmt.Sprintf("file %q %q", url, checksum), func(r *remote) error {
		o := f.httpOptions()
		o.Checksum = checksum
		got, err := fetch.HTTP(ctx, f.disk, url, o)
		if err != nil {
			return err
		}
		r.inode, r.time = got.Inode, time.Unix(got.Inode.MTime, 0)
		return nil
	})
}

// checkout is the policy of ADD for the times of a repository's files: it does not heed what a URL says of them.
const checkout = "checkout"

// repository fetches a directory of a git repository. mtime is "" for what the URL says.
func (f *remotes) repository(ctx context.Context, url, checksum, mtime string, keep *bool) (*remote, error) {
	flag := "-"
	if keep != nil {
		flag = fmt.Sprint(*keep)
	}
	return f.get(fmt.Sprintf("git %q %q %q %s", url, checksum, mtime, flag), func(r *remote) error {
		o := f.gitOptions()
		o.Checksum, o.KeepGitDir, o.MTime = checksum, keep, mtime
		t, commit, err := fetch.Git(ctx, f.disk, url, o)
		if err != nil {
			return err
		}
		r.inode, r.time = t.Root(), commit.Time
		return nil
	})
}

// httpOptions are those of every download, gitOptions those of every repository.
func (f *remotes) httpOptions() fetch.HTTPOptions {
	return fetch.HTTPOptions{
		Header:  f.secret("HTTP_AUTH_HEADER_%s"),
		Token:   f.secret("HTTP_AUTH_TOKEN_%s"),
		Network: fetch.Network{OnRetry: f.retry},
	}
}

func (f *remotes) gitOptions() fetch.GitOptions {
	return fetch.GitOptions{
		Now:   f.now(),
		Token: f.secret("GIT_AUTH_TOKEN.%s", "GIT_AUTH_TOKEN"),
		Header: func(host string) string {
			// What is meant for the host goes before what is meant for all.
			if _, ok := f.secrets["GIT_AUTH_TOKEN."+host]; ok {
				return f.secret("GIT_AUTH_HEADER.%s")(host)
			}
			return f.secret("GIT_AUTH_HEADER.%s", "GIT_AUTH_HEADER")(host)
		},
		SSH:     f.ssh(),
		Network: fetch.Network{OnRetry: f.retry},
	}
}

// retry says that something did not work at once.
func (f *remotes) retry(reason string, wait time.Duration) {
	f.say(fmt.Sprintf("%s, trying again in %s", reason, wait.Round(time.Millisecond)))
}

// secret returns a function that finds a host's secret under the first of the names that there is.
func (f *remotes) secret(names ...string) func(host string) string {
	return func(host string) string {
		for _, name := range names {
			if strings.Contains(name, "%s") {
				name = fmt.Sprintf(name, host)
			}
			if v, ok := f.secrets[name]; ok {
				return strings.TrimSpace(string(v))
			}
		}
		return ""
	}
}

// ssh is the agent called default, as for docker build.
func (f *remotes) ssh() *fetch.SSH {
	a, ok := f.agents["default"]
	if !ok {
		return nil
	}
	return &fetch.SSH{Agent: a.socket, Keys: a.pem, KnownHosts: f.knownHosts}
}

// context is the Tree of a named context that a URL leads to: a repository, or one file that is called "context".
func (f *remotes) context(ctx context.Context, url string) (*tree.Tree, error) {
	if _, isGit, err := fetch.ParseGitURL(url); isGit {
		if err != nil {
			return nil, err
		}
		r, err := f.repository(ctx, url, "", "", f.keepGitDir)
		if err != nil {
			return nil, err
		}
		return tree.FromRoot(r.inode), nil
	}
	r, err := f.file(ctx, url, "")
	if err != nil {
		return nil, err
	}
	return tree.FromRoot(tree.NewDir(tree.Meta{Mode: 0o755}, tree.Entry{Name: "context", Inode: r.inode})), nil
}

// epoch is the time of a source that SOURCE_DATE_EPOCH names. A local directory has none.
func (f *remotes) epoch(ctx context.Context, s plan.EpochSource) (*time.Time, error) {
	var (
		r   *remote
		err error
	)
	switch {
	case s.Add != nil && s.Add.Git != "":
		r, err = f.repository(ctx, s.Add.Git, s.Checksum, checkout, nil)
	case s.Add != nil:
		r, err = f.file(ctx, s.Add.URL, s.Checksum)
	case s.Context != nil && strings.Contains(s.Context.Value, "://"):
		_, isGit, parseErr := fetch.ParseGitURL(s.Context.Value)
		switch {
		case isGit && parseErr != nil:
			return nil, parseErr
		case isGit:
			r, err = f.repository(ctx, s.Context.Value, "", "", f.keepGitDir)
		default:
			r, err = f.file(ctx, s.Context.Value, "")
		}
	default:
		return nil, nil //nolint:nilnil // what EpochFunc says for none
	}
	if err != nil || r.time.IsZero() || r.time.Unix() == 0 {
		return nil, err
	}
	return &r.time, nil
}

// remoteItem is what an ADD copies from a URL.
func (x *executor) remoteItem(ctx context.Context, op plan.Copy, src plan.CopySource) (copy.Item, error) {
	if src.Git != "" {
		r, err := x.remotes.repository(ctx, src.Git, op.Checksum, checkout, op.KeepGitDir)
		if err != nil {
			return copy.Item{}, err
		}
		return copy.Item{Inode: r.inode}, nil
	}
	r, err := x.remotes.file(ctx, src.URL, op.Checksum)
	if err != nil {
		return copy.Item{}, err
	}
	return copy.Item{Name: src.Name, Inode: r.inode, Unpack: op.Unpack != nil && *op.Unpack}, nil
}
