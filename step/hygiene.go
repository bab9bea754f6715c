// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"go.uber.org/zap"

	"github.com/kaniko-go/kaniko-go/builder/isolation"
	"github.com/kaniko-go/kaniko-go/step/config"
)

// cacheList carries out mode cache-list: JSON goes to standard output, a table for people to the log.
func cacheList(ctx context.Context, cfg *config.Config, status isolation.Status, log *zap.Logger) error {
	b, err := newBuilder(cfg, status, log)
	if err != nil {
		return err
	}
	defer b.Registry.Close()
	inventory, err := b.List(ctx, cacheOptions(cfg))
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return errors.Join(err, out.Encode(inventory))
}

// cachePrune carries out mode cache-prune.
func cachePrune(ctx context.Context, cfg *config.Config, status isolation.Status, log *zap.Logger) error {
	b, err := newBuilder(cfg, status, log)
	if err != nil {
		return err
	}
	defer b.Registry.Close()
	return b.Prune(ctx, cacheOptions(cfg))
}
