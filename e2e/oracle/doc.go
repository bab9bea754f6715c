// SPDX-License-Identifier: Apache-2.0

// Package oracle compares the plans of builder/internal/plan with what BuildKit's own
// dockerfile2llb makes of the same Dockerfile: image configuration, history, the whole graph
// of operations with their inputs, build checks and error texts. It has only tests, and is a module of its
// own because BuildKit's frontend brings modules along that the program must not
// have. Nothing is built and no daemon runs: images and remote sources are made up.
//
// "go test" here runs the kept cases and some thousand random ones. -seed N makes the same
// random ones again, -cases N more of them; one that differs is shrunk and kept in testdata.
package oracle
