// Burns CPU in inner, which middle calls, which outer calls.
package main

import "os"

//go:noinline
func inner(rounds uint64) uint64 {
	var sum uint64
	for round := uint64(0); round < rounds; round++ {
		sum ^= round * 2654435761
	}
	return sum
}

//go:noinline
func middle(rounds uint64) uint64 {
	var sum uint64
	for i := 0; i < 100; i++ {
		sum += inner(rounds)
	}
	return sum
}

//go:noinline
func outer(rounds uint64) uint64 {
	return middle(rounds) + 1
}

func main() {
	for outer(3000000) != 0 {
	}
	os.Exit(1)
}
