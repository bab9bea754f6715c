// SPDX-License-Identifier: Apache-2.0

package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
)

const (
	hostsFile = "/etc/hosts"
	// pipesDir is where scripts of a RUN are.
	pipesDir = "/dev/pipes"
)

// run runs the process in the root as it is, and sees to it that nothing is left beside what the command changed in the root.
func (n *InPlace) run(ctx context.Context, p Process) (err error) {
	e := &emulation{host: n, root: inRoot{int(n.root.Fd())}}
	outside, ours := n.foreign(), n.ours(p)
	before := stamps(outside, ours)
	if err := e.begin(ctx, p); err != nil {
		return errors.Join(err, e.end())
	}
	own := n.ownFiles()
	runErr := n.status.run(ctx, FS{Dir: "/"}, p)
	// Nobody of the command is alive.
	err = untouched(own, n.ownFiles())
	err = errors.Join(err, e.end())
	if err == nil && runErr == nil {
		err = n.lost(before, stamps(outside, ours))
	}
	if err != nil {
		return errors.Join(err, runErr)
	}
	return runErr
}

// addHosts appends lines to the container's /etc/hosts, which is mounted, for the time of a RUN.
func addHosts(hosts []Host) error {
	if len(hosts) == 0 {
		return nil
	}
	f, err := os.OpenFile(hostsFile, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return &RefusedError{What: "a line in /etc/hosts for RUN", Why: "the container's cannot be written", Err: err}
	}
	text := "\n"
	for _, h := range hosts {
		text += fmt.Sprintf("%s\t%s\n", h.IP, h.Name)
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
