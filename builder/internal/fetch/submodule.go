// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/go-git/go-git/v6/plumbing"
	gitconfig "github.com/go-git/go-git/v6/plumbing/format/config"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// maxModulesFile is how long a .gitmodules may be.
const maxModulesFile = 1 << 20

// module is what .gitmodules says of a path.
type module struct {
	url  string
	skip bool
}

// modulesOf reads .gitmodules, which must be a regular file: what a link leads to is not in git's own keeping.
func (g *git) modulesOf(root []treeEntry) (map[string]module, error) {
	modules := map[string]module{}
	for _, e := range root {
		if e.name != ".gitmodules" || !g.wantsModules() {
			continue
		}
		if e.mode&modeType != modeFile {
			return nil, fmt.Errorf("%w: .gitmodules is not a regular file", ErrForbidden)
		}
		b, err := g.objects.read(e.hash, plumbing.BlobObject, maxModulesFile)
		if err != nil {
			return nil, err
		}
		conf := gitconfig.New()
		if err := gitconfig.NewDecoder(bytes.NewReader(b)).Decode(conf); err != nil {
			return nil, fmt.Errorf("%w: .gitmodules: %w", ErrForbidden, err)
		}
		for _, s := range conf.Section("submodule").Subsections {
			modules[s.Option("path")] = module{url: s.Option("url"), skip: s.Option("update") == "none"}
		}
	}
	return modules, nil
}

func (g *git) wantsModules() bool { return g.url.Submodules == nil || *g.url.Submodules }

// submodule fetches the commit of another repository that belongs at p. It is named by the SHA alone, so whoever serves it
// can only serve that.
func (w *worktree) submodule(ctx context.Context, e treeEntry, p string) (*tree.Inode, error) {
	empty := tree.NewDir(w.meta(0o755))
	if !w.git.wantsModules() {
		return empty, nil
	}
	m, ok := w.modules[p]
	if !ok || m.url == "" {
		return nil, fmt.Errorf("no url found for submodule path %q in .gitmodules", escape(p))
	}
	if m.skip {
		return empty, nil
	}
	if strings.ContainsFunc(p, isControl) {
		return nil, fmt.Errorf("%w: submodule path %q", ErrForbidden, escape(p))
	}
	if w.nesting++; w.nesting > maxNesting {
		return nil, fmt.Errorf("%w: submodules lie deeper than %d", ErrLimit, maxNesting)
	}
	defer func() { w.nesting-- }()
	if w.git.budget.modules--; w.git.budget.modules < 0 {
		return nil, fmt.Errorf("%w: more than %d submodules", ErrLimit, maxModules)
	}
	ino, err := w.fetchModule(ctx, e.hash, p, m)
	if err != nil {
		return nil, fmt.Errorf("submodule %s: %w", escape(path.Join(w.prefix, p)), err)
	}
	return ino, nil
}

func (w *worktree) fetchModule(ctx context.Context, want plumbing.Hash, p string, m module) (*tree.Inode, error) {
	r, err := w.repo.remote.sibling(m.url)
	if err != nil {
		return nil, err
	}
	if top := w.git.url.remote; r.scheme == "ssh" && top.isHTTP() && strings.EqualFold(r.hostname(), top.hostname()) {
		// The same server's other door, for which there is no key; the credential of this one serves for its repositories.
		r = r.overHTTP(top.scheme)
		r.host = top.host
	}
	if r.origin() != w.git.url.remote.origin() {
		// What .gitmodules says of users and passwords is nobody's credential.
		r.user, r.password = "", ""
	}
	repo, err := w.git.fetch(ctx, r, func(context.Context, *session) (target, error) {
		return target{want: want, bySHA: true}, nil
	})
	if err != nil {
		return nil, err
	}
	info, err := w.git.objects.commit(want)
	if err != nil {
		return nil, err
	}
	repo.commit, repo.tree = want, info.tree
	return w.repository(ctx, repo, path.Join(w.prefix, p), w.nesting)
}
