// SPDX-License-Identifier: Apache-2.0

// Package pods holds the tests that start the built binary as a kubelet does: by runc, from an image with nothing but our own
// files, with the default seccomp profile, capabilities, masked and read-only paths of containerd, and the mounts of a pod.
// They show which Dockerfiles build in which kind of pod and that the image is the same wherever it builds, what a hostile
// RUN obtains, that nothing survives a RUN, and that a build can be ended at any moment. It is not a cluster: there is no
// kubelet, no API server and no AppArmor or SELinux. `go test` runs a sample of everything, `-full` the whole.
package pods
