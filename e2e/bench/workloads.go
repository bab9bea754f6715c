// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"os"
	"strings"
)

// workload is one shape of build.
type workload struct {
	name, stresses string
	dockerfile     string
	base           string // the build argument and base of the last stage
	// generate writes the build context; salt differs between the rounds of a workload with a cache.
	generate func(dir, salt string) error
	cached   bool // round 0 fills a registry cache and is not recorded
}

func workloads() []workload {
	runs := manyRuns()
	return []workload{
		{
			name: "no-op", stresses: "fixed cost: start, base, push", base: "BASE_BUSYBOX", generate: generateNothing,
			dockerfile: "ARG BASE_BUSYBOX\nFROM ${BASE_BUSYBOX}\nCOPY greeting /greeting\n",
		},
		{
			name: "copy-only", stresses: "COPY of 5000 files, 200 MB: compression and push", base: "BASE_DEBIAN", generate: generateFiles,
			dockerfile: "ARG BASE_DEBIAN\nFROM ${BASE_DEBIAN}\nCOPY app/ /srv/app/\nCMD [\"/bin/true\"]\n",
		},
		{
			name: "many-runs", stresses: "20 RUNs that touch a few files each of 41 000: finding changes", base: "BASE_BIG", generate: generateSeeds,
			dockerfile: runs,
		},
		{
			name: "big-layer", stresses: "one layer of 1 GB, 2:1 compressible: memory, compressor", base: "BASE_DEBIAN", generate: generateHalf,
			dockerfile: "ARG BASE_DEBIAN\nFROM ${BASE_DEBIAN}\nCOPY piece /tmp/piece\n" +
				"RUN mkdir /data && for i in $(seq 16); do { echo piece $i; cat /tmp/piece; } >/data/$i || exit 1; done && rm /tmp/piece\nCMD [\"/bin/true\"]\n",
		},
		{
			name: "multistage", stresses: "4 independent stages of single-threaded work: parallelism", base: "BASE_DEBIAN", generate: generateNothing,
			dockerfile: fourStages(),
		},
		{
			name: "many-files", stresses: "60 000 small files copied, 100 touched, copied across stages", base: "BASE_DEBIAN", generate: generatePackages,
			dockerfile: "ARG BASE_DEBIAN\nFROM ${BASE_DEBIAN} AS packages\nWORKDIR /app\nCOPY node_modules/ node_modules/\n" +
				"RUN for p in $(seq 0 20 980); do d=node_modules/package$p/lib; rm $d/f0.js && echo patched >>$d/f1.js || exit 1; done\n" +
				"FROM ${BASE_DEBIAN}\nCOPY --from=packages /app/ /app/\nCMD [\"/bin/true\"]\n",
		},
		{
			name: "warm-cache", stresses: "all cached in the registry but the last COPY", base: "BASE_BIG", generate: generateSeeds, cached: true,
			dockerfile: runs,
		},
	}
}

func manyRuns() string {
	var d strings.Builder
	d.WriteString("ARG BASE_BIG\nFROM ${BASE_BIG}\nCOPY seed /srv/seed\n")
	for i := 1; i <= 20; i++ {
		switch i % 4 {
		case 1:
			fmt.Fprintf(&d, "RUN mkdir -p /srv/state/%d && echo %d | tee /srv/state/%d/number >/srv/state/last\n", i, i, i)
		case 2:
			fmt.Fprintf(&d, "RUN echo step %d >>/etc/motd\n", i)
		case 3:
			fmt.Fprintf(&d, "RUN ln -s ../seed /srv/state/link%d && touch /usr/share/doc && chmod 0600 /srv/seed\n", i)
		default:
			fmt.Fprintf(&d, "RUN rm -r /srv/state/%d && echo %d >/srv/state/last\n", i-3, i)
		}
	}
	d.WriteString("COPY last /srv/last\nCMD [\"/bin/true\"]\n")
	return d.String()
}

func fourStages() string {
	var d strings.Builder
	d.WriteString("ARG BASE_DEBIAN\n")
	for _, s := range []string{"north", "east", "south", "west"} {
		fmt.Fprintf(&d, "FROM ${BASE_DEBIAN} AS %s\nRUN mkdir /sums && head -c 1400000000 /dev/zero | sha256sum >/sums/%s\n", s, s)
	}
	d.WriteString("FROM ${BASE_DEBIAN}\n")
	for _, s := range []string{"north", "east", "south", "west"} {
		fmt.Fprintf(&d, "COPY --from=%s /sums/ /sums/\n", s)
	}
	d.WriteString("CMD [\"/bin/true\"]\n")
	return d.String()
}

func generateNothing(dir, _ string) error { return write(dir, "greeting", []byte("hello\n"), 0o644) }

func generateSeeds(dir, salt string) error {
	if err := write(dir, "seed", []byte("seed\n"), 0o644); err != nil {
		return err
	}
	return write(dir, "last", []byte("last "+salt+"\n"), 0o644)
}

func generateHalf(dir, _ string) error {
	const size = 64_000_000
	return write(dir, "piece", newSource("big-layer").mixed(make([]byte, 0, size), size), 0o644)
}

// generateFiles makes 4992 files with log-uniform sizes that add up to 136 MB, and 8 of 8 MB; text, mixed and noise by thirds.
func generateFiles(dir, _ string) error {
	const small, large, total = 4992, 8, 136_000_000
	s := newSource("copy-only")
	sizes, sum := make([]float64, small), 0.0
	for i := range sizes {
		sizes[i] = math.Pow(10, 2.3+3.3*s.Float64())
		sum += sizes[i]
	}
	b := make([]byte, 0, 8_000_000)
	for i := range small + large {
		n := 8_000_000
		if i < small {
			n = 1 + int(sizes[i]*total/sum)
		}
		kind, mode := []string{"js", "so", "png"}[i%3], os.FileMode(0o644)
		switch kind {
		case "js":
			b = s.text(b[:0], n)
		case "so":
			b = s.mixed(b[:0], n)
			mode = 0o755
		default:
			b = s.noise(b[:0], n)
		}
		if err := write(dir, fmt.Sprintf("app/d%02d/s%d/f%d.%s", i%40, i%7, i, kind), b, mode); err != nil {
			return err
		}
	}
	return settle(dir)
}

// generatePackages makes 1000 packages of 60 files with log-normal sizes, about 3 kB each.
func generatePackages(dir, _ string) error {
	s := newSource("many-files")
	b := make([]byte, 0, 40_000)
	for p := range 1000 {
		for i := range 60 {
			name := fmt.Sprintf("node_modules/package%d/lib/f%d.js", p, i)
			if i >= 40 {
				name = fmt.Sprintf("node_modules/package%d/dist/part%d/f%d.js", p, i%4, i)
			}
			b = s.text(b[:0], min(40_000, 40+int(math.Exp(7.3+1.1*s.NormFloat64()))))
			if err := write(dir, name, b, 0o644); err != nil {
				return err
			}
		}
	}
	return settle(dir)
}
