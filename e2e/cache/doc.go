// SPDX-License-Identifier: Apache-2.0

// Package cache holds the tests of the layer cache as users meet it: the built binary, real registries and directories. One
// question is asked in many ways: is the image that came with the help of the cache the one that comes without? The rest is
// how little it costs, and that a cache which is damaged, slow or gone never costs more than a warning.
package cache
