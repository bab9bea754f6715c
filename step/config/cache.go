// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// ociPrefix begins a cache that is a directory.
const ociPrefix = "oci:"

// CacheRepos are the places of the layer cache: those given, or the repository of the first destination with /cache added. There are none
// without KANIKO_CACHE, but in the modes that are about caches.
func (c *Config) CacheRepos() []string {
	switch {
	case !c.Cache && !c.Mode.keepsCaches():
		return nil
	case len(c.CacheRepo) > 0 || len(c.Destination) == 0:
		return c.CacheRepo
	}
	tag, err := name.NewTag(c.Destination[0])
	if err != nil {
		return nil // refused by Validate
	}
	return []string{tag.Repository.Name() + "/cache"}
}

// keepsCaches tells whether the mode is about what caches hold.
func (m Mode) keepsCaches() bool { return m == ModeCacheList || m == ModeCachePrune }

func (c *Config) checkCache() error {
	var errs []error
	if c.Cache && len(c.CacheRepo) == 0 && len(c.Destination) == 0 && (c.Mode == ModeBuild || c.Mode == "") {
		errs = append(errs, errors.New("KANIKO_CACHE=true needs KANIKO_CACHE_REPO where there is no KANIKO_DESTINATION: a repository, or oci:DIRECTORY"))
	}
	if c.CacheDir != "" && !filepath.IsAbs(c.CacheDir) {
		errs = append(errs, problem("KANIKO_CACHE_DIR", c.CacheDir, "not an absolute path"))
	}
	if c.Mode.keepsCaches() && len(c.CacheRepo) == 0 && c.CacheDir == "" && len(c.Destination) == 0 {
		errs = append(errs, fmt.Errorf("KANIKO_MODE=%s needs KANIKO_CACHE_REPO or KANIKO_CACHE_DIR, which say where to look", c.Mode))
	}
	if c.CacheMounts == CacheMountsRegistry && !c.Cache && !c.Mode.keepsCaches() {
		errs = append(errs, problem("KANIKO_CACHE_MOUNTS", "registry", "cache mounts go where layers are kept, and that is nowhere; set KANIKO_CACHE=true"))
	}
	if c.CacheUnpacked && c.CacheDir == "" {
		errs = append(errs, problem("KANIKO_CACHE_UNPACKED", "true", "there is no KANIKO_CACHE_DIR to keep them in"))
	}
	if c.Mode == ModeWarm && c.CacheDir == "" {
		errs = append(errs, errors.New("KANIKO_MODE=warm needs KANIKO_CACHE_DIR, the directory that images are fetched into"))
	}
	if c.NoPush && (c.Mode == ModePush || c.Mode == ModeIndex) {
		errs = append(errs, fmt.Errorf("KANIKO_NO_PUSH=true contradicts KANIKO_MODE=%s, which does nothing but push", c.Mode))
	}
	if c.Mode == ModeIndex && len(c.Image) == 0 {
		errs = append(errs, errors.New("KANIKO_MODE=index needs KANIKO_IMAGE, the images of the platforms, REPOSITORY@DIGEST one a line"))
	}
	if c.Mode == ModePush && (c.OCILayoutPath == "") == (c.TarPath == "") {
		errs = append(errs, errors.New("KANIKO_MODE=push needs KANIKO_OCI_LAYOUT_PATH or KANIKO_TAR_PATH, one of them, which says what to push"))
	}
	for _, repo := range c.CacheRepo {
		if dir, local := strings.CutPrefix(repo, ociPrefix); local {
			if dir == "" || !filepath.IsAbs(dir) {
				errs = append(errs, problem("KANIKO_CACHE_REPO", repo, "not the absolute path of a directory; write oci:/DIRECTORY"))
			}
			continue
		}
		if _, err := name.NewRepository(repo); err != nil {
			errs = append(errs, problem("KANIKO_CACHE_REPO", repo, "neither a repository, HOST/NAME without a tag, nor oci:DIRECTORY"))
		}
	}
	for _, stage := range c.NoCache {
		if stage == "false" {
			errs = append(errs, problem("KANIKO_NO_CACHE", stage, "write true, or the names of stages; leave it empty to use the cache"))
		}
	}
	return errors.Join(errs...)
}
