// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v6/plumbing/filemode"
	formatcfg "github.com/go-git/go-git/v6/plumbing/format/config"
	"github.com/go-git/go-git/v6/plumbing/format/idxfile"
	"github.com/go-git/go-git/v6/plumbing/format/index"

	"github.com/kaniko-go/kaniko-go/builder/internal/tree"
)

// gitDir makes the .git directory of a repository: detached at the commit, with the pack as it was fetched, and an
// origin without credentials.
func (w *worktree) gitDir() (*tree.Inode, error) {
	name, pack, idx, err := w.packFiles()
	if err != nil {
		return nil, err
	}
	list, err := w.indexFile()
	if err != nil {
		return nil, err
	}
	root := []tree.Entry{
		{Name: "HEAD", Inode: w.text(w.repo.commit.String() + "\n")},
		{Name: "config", Inode: w.text(gitConfig(w.repo))},
		{Name: "index", Inode: list},
		w.sub("objects", w.sub("info"), w.sub("pack",
			tree.Entry{Name: name + ".pack", Inode: pack}, tree.Entry{Name: name + ".idx", Inode: idx})),
		w.refs(),
	}
	if len(w.repo.shallow) > 0 {
		var b strings.Builder
		for _, h := range w.repo.shallow {
			b.WriteString(h.String() + "\n")
		}
		root = append(root, tree.Entry{Name: "shallow", Inode: w.text(b.String())})
	}
	return tree.NewDir(w.meta(0o755), root...), nil
}

func (w *worktree) sub(name string, entries ...tree.Entry) tree.Entry {
	return tree.Entry{Name: name, Inode: tree.NewDir(w.meta(0o755), entries...)}
}

// text is a small file, held in memory.
func (w *worktree) text(s string) *tree.Inode {
	return tree.NewFile(w.meta(0o644), int64(len(s)), tree.Bytes(s))
}

// refs has the branch or tag that was asked for.
func (w *worktree) refs() tree.Entry {
	rest, ok := strings.CutPrefix(w.repo.target.ref, "refs/")
	heads, tags := w.sub("heads"), w.sub("tags")
	if !ok {
		return w.sub("refs", heads, tags)
	}
	parts := strings.Split(rest, "/")
	ref := tree.Entry{Name: parts[len(parts)-1], Inode: w.text(w.repo.target.want.String() + "\n")}
	for i := len(parts) - 2; i >= 0; i-- {
		ref = w.sub(parts[i], ref)
	}
	switch ref.Name {
	case "heads":
		heads = ref
	case "tags":
		tags = ref
	default:
		return w.sub("refs", heads, tags, ref)
	}
	return w.sub("refs", heads, tags)
}

// gitConfig quotes the address, in which a quote or backslash cannot be (it is escaped for http, and checked here for the rest).
func gitConfig(r *repository) string {
	url := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(r.remote.String())
	version, extensions := formatcfg.Version0, ""
	if r.format != formatcfg.SHA1 {
		version, extensions = formatcfg.Version1, "[extensions]\n\tobjectformat = "+r.format.String()+"\n"
	}
	return "[core]\n\trepositoryformatversion = " + version + "\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n" +
		extensions + "[remote \"origin\"]\n\turl = \"" + url + "\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
}

// packFiles are the pack and its index.
func (w *worktree) packFiles() (name string, pack, idx *tree.Inode, err error) {
	packed := w.repo.packed
	writer := new(idxfile.Writer)
	if err := writer.OnHeader(uint32(len(packed.entries))); err != nil {
		return "", nil, nil, err
	}
	for _, e := range packed.entries {
		writer.Add(e.hash, uint64(e.offset), e.crc)
	}
	if err := writer.OnFooter(packed.checksum); err != nil {
		return "", nil, nil, err
	}
	table, err := writer.Index()
	if err != nil {
		return "", nil, nil, fmt.Errorf("pack index: %w", err)
	}
	idx, err = w.spooled(0o444, func(out io.Writer) error {
		return idxfile.Encode(out, newHash(w.repo.format), table)
	})
	if err != nil {
		return "", nil, nil, err
	}
	size, err := w.repo.pack.Seek(0, io.SeekEnd)
	if err != nil {
		return "", nil, nil, local(err)
	}
	if err := checkPack(w.repo.pack, size, newHash(w.repo.format)); err != nil {
		return "", nil, nil, err
	}
	pack = tree.NewFile(w.meta(0o444), size, &section{file: w.repo.pack, size: size})
	return "pack-" + packed.checksum.String(), pack, idx, nil
}

// spooled is a file that is made now and lies in the store.
func (w *worktree) spooled(mode uint16, fill func(io.Writer) error) (*tree.Inode, error) {
	f, err := w.git.store.Spool()
	if err != nil {
		return nil, local(err)
	}
	counted := &countWriter{w: localWriter{f}}
	if err := fill(counted); err != nil {
		_ = f.Close()
		return nil, err
	}
	return tree.NewFile(w.meta(mode), counted.n, &section{file: f, size: counted.n}), nil
}

// indexFile lists the files of the commit, so that git status knows them. Their times are not in it: git
// looks at the contents once.
func (w *worktree) indexFile() (*tree.Inode, error) {
	var b bytes.Buffer
	if err := index.NewEncoder(&b, newHash(w.repo.format)).Encode(&index.Index{Version: 2, Entries: w.files}); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	return w.spooled(0o644, func(out io.Writer) error {
		_, err := b.WriteTo(out)
		return err
	})
}

func indexMode(mode uint32) filemode.FileMode {
	switch {
	case mode&modeType == modeFile && mode&0o100 != 0:
		return filemode.Executable
	case mode&modeType == modeFile:
		return filemode.Regular
	default:
		return filemode.FileMode(mode & modeType)
	}
}

// isSHA reports whether a ref is a whole commit name rather than a branch or tag.
func isSHA(s string) bool {
	return (len(s) == 40 || len(s) == 64) && isHex(s) && strings.ToLower(s) == s
}
