// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	hostsFile = "/etc/hosts"
	// pipesDir is where scripts of a RUN are.
	pipesDir = "/dev/pipes"
)

// run runs the process in the root as it is, and sees to it that nothing is left beside what the command changed in the root.
func (n *InPlace) run(ctx context.Context, p Process) (err error) {
	e := &emulation{host: n, root: inRoot{int(n.root.Fd())}}
	outside := n.foreign(p)
	before := stamps(outside, n.isKeptFile)
	if err := e.begin(ctx, p); err != nil {
		return errors.Join(err, e.end())
	}
	own := n.ownFiles()
	runErr := n.status.run(ctx, FS{Dir: "/"}, p)
	// Nobody of the command is alive.
	err = untouched(own, n.ownFiles())
	err = errors.Join(err, e.end())
	if err == nil && runErr == nil {
		err = n.lost(before, stamps(outside, n.isKeptFile))
	}
	if err != nil {
		return errors.Join(err, runErr)
	}
	return runErr
}

// isKeptFile leaves out of a mount what the builder itself changes there.
func (n *InPlace) isKeptFile(p string) bool {
	dir := filepath.Dir(n.o.Dir)
	return p == dir || strings.HasPrefix(p, dir+"/")
}

// addHosts appends lines to the container's /etc/hosts, which is mounted, for the time of a RUN.
func (n *InPlace) addHosts(hosts []Host) error {
	if len(hosts) == 0 {
		return nil
	}
	old, err := os.ReadFile(hostsFile)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(int(n.aside.dir.Fd()), hostsName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), hostsName)
	_, err = f.Write(old)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	text := string(old)
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	for _, h := range hosts {
		text += fmt.Sprintf("%s\t%s\n", h.IP, h.Name)
	}
	if err := os.WriteFile(hostsFile, []byte(text), 0o644); err != nil { //nolint:gosec // the container's own
		return &RefusedError{What: "a line in /etc/hosts for RUN", Why: "the container's cannot be written", Err: err}
	}
	return nil
}
