// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// record is one measured build.
type record struct {
	workload, builder string
	round             int
	cost              cost
	added             int64 // compressed bytes of the layers that are not the base's
	layers            int
}

// median of values; 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[len(values)/2]
}

// report writes what was measured as Markdown. Ratios are medians over the rounds in which both builders ran: on a shared
// machine they can be trusted more than seconds.
func report(w io.Writer, records []record, builders []builder, rounds int) error {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\n`make bench` builds each workload with each builder, one after the other within a round, every time from nothing: empty state, base pulled, a new repository pushed to.\n")
	b.WriteString("The registry is distribution on loopback with its blobs on disk. CPU is everything the builder started, RUN's own work included; \"peak anonymous\" is what a memory limit cannot reclaim;\n")
	b.WriteString("\"÷ ours\" is the median of the ratios to kaniko-go in the same round (more than 1: kaniko-go is better). Seconds depend on the machine and on what else it does; quote the ratios.\n\n")
	how := "-"
	if len(records) > 0 {
		how = records[0].cost.how
	}
	fmt.Fprintf(&b, "%s, %d rounds, %d CPUs, Linux %s, %s, measured by %s:", time.Now().UTC().Format(time.DateOnly), rounds, runtime.NumCPU(), kernel(), runtime.GOARCH, how)
	for i, builder := range builders {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, " %s (%s)", builder.name, builder.version)
	}
	b.WriteString(".\n\n| workload | builder | runs | wall s | CPU s (user + system) | peak anonymous MB | largest process MB | layers made MB | layers | wall ÷ ours | CPU ÷ ours |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, load := range workloads() {
		for _, builder := range builders {
			writeRow(&b, records, load.name, builder.name)
		}
	}
	b.WriteString("\n| workload | what it stresses |\n|---|---|\n")
	for _, load := range workloads() {
		if slices.ContainsFunc(records, func(r record) bool { return r.workload == load.name }) {
			fmt.Fprintf(&b, "| %s | %s |\n", load.name, load.stresses)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeRow(b *strings.Builder, records []record, workload, builder string) {
	var wall, cpu, user, system, anonymous, largest, wallRatio, cpuRatio []float64
	var last record
	failed := 0
	for _, r := range records {
		if r.workload != workload || r.builder != builder {
			continue
		}
		if r.cost.code != 0 {
			failed++
			continue
		}
		last = r
		wall, cpu = append(wall, r.cost.wall.Seconds()), append(cpu, r.cost.cpu().Seconds())
		user, system = append(user, r.cost.user.Seconds()), append(system, r.cost.system.Seconds())
		anonymous, largest = append(anonymous, float64(r.cost.anonymous)/1e6), append(largest, float64(r.cost.largest)/1e6)
		for _, o := range records {
			if o.workload == workload && o.builder == "kaniko-go" && o.round == r.round && o.cost.code == 0 {
				wallRatio = append(wallRatio, r.cost.wall.Seconds()/o.cost.wall.Seconds())
				cpuRatio = append(cpuRatio, r.cost.cpu().Seconds()/o.cost.cpu().Seconds())
			}
		}
	}
	if len(wall) == 0 {
		if failed > 0 {
			fmt.Fprintf(b, "| %s | %s | %d failed | | | | | | | | |\n", workload, builder, failed)
		}
		return
	}
	runs := fmt.Sprint(len(wall))
	if failed > 0 {
		runs += fmt.Sprintf(", %d failed", failed)
	}
	fmt.Fprintf(b, "| %s | %s | %s | %.2f | %.2f (%.1f + %.1f) | %.0f | %.0f %s | %.1f | %d | %s | %s |\n", workload, builder, runs, median(wall), median(cpu), median(user), median(system),
		median(anonymous), median(largest), last.cost.largestName, float64(last.added)/1e6, last.layers, ratio(wallRatio), ratio(cpuRatio))
}

func ratio(values []float64) string {
	if len(values) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", median(values))
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "?"
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(b)), "-")
	return version
}
