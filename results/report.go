// SPDX-License-Identifier: Apache-2.0

package results

import (
	"fmt"
	"os"
	"strings"
	"unicode/utf8"
)

// maxCause keeps the message readable in a table of nodes; Kubernetes itself
// would take 4096 bytes.
const maxCause = 1024

// WriteCause writes why a build failed, on one line, to the termination log of
// a container, from where Argo and kubectl show it. The file is the kubelet's:
// where it does not exist, the error is os.ErrNotExist and nothing is created.
func WriteCause(path, cause string) error {
	if path == "" {
		return nil
	}
	line := strings.Join(strings.Fields(cause), " ")
	if len(line) > maxCause {
		end := maxCause
		for end > maxCause-utf8.UTFMax+1 && !utf8.RuneStart(line[end]) {
			end-- // not within a rune
		}
		line = line[:end]
	}
	if err := overwrite(path, line); err != nil {
		return fmt.Errorf("termination log: %w", err)
	}
	return nil
}

// Progress is the file from which Argo takes how much of a build is done. It is
// for one goroutine at a time.
type Progress struct {
	// Path is empty where nobody asked.
	Path string
}

// Set says that done of total parts are done. Argo ignores a total of zero and
// a part above the whole, so those are not written.
func (p Progress) Set(done, total int) error {
	if p.Path == "" || total <= 0 || done < 0 || done > total {
		return nil
	}
	// Argo reads whenever it likes: it must never see half a line.
	tmp, err := prepare(file{p.Path, fmt.Sprintf("%d/%d", done, total)})
	if err != nil {
		return fmt.Errorf("progress file: %w", err)
	}
	if err := os.Rename(tmp, p.Path); err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("progress file: %w", err)
	}
	return nil
}
