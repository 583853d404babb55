// Command wire is a client with gRPC for Go: see tests/wire/clients.rs for what it prints.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	decide  = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
	check   = "/grpc.health.v1.Health/Check"
	watch   = "/grpc.health.v1.Health/Watch"
	reflect = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	unknown = "/x.Y/Z"
)

var (
	messages = os.Args[3]
	verdicts = map[byte]string{1: "OK", 2: "OVER_LIMIT"}
	// The names of gRPC, which are not those of Go.
	names = map[codes.Code]string{
		codes.OK: "OK", codes.Canceled: "CANCELLED", codes.DeadlineExceeded: "DEADLINE_EXCEEDED",
		codes.NotFound: "NOT_FOUND", codes.Unimplemented: "UNIMPLEMENTED",
	}
	streams = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
)

// bytes are messages as they are.
type bytes struct{}

func (bytes) Marshal(v any) ([]byte, error) { return *(v.(*[]byte)), nil }
func (bytes) Unmarshal(data []byte, v any) error {
	*(v.(*[]byte)) = append([]byte{}, data...)
	return nil
}
func (bytes) Name() string { return "proto" }

func message(name string) *[]byte {
	data, err := os.ReadFile(filepath.Join(messages, name))
	if err != nil {
		log.Fatal(err)
	}
	return &data
}

func code(err error) string {
	name, known := names[status.Code(err)]
	if !known {
		return fmt.Sprint(err)
	}
	return name
}

// verdict asks, and returns the code of the decision, or that of gRPC.
func verdict(conn *grpc.ClientConn, name string) string {
	var answer []byte
	if err := conn.Invoke(context.Background(), decide, message(name), &answer); err != nil {
		return code(err)
	}
	return verdicts[answer[1]]
}

// first opens a stream, sends a message, and returns the first answer; then what `end` leads to.
func first(conn *grpc.ClientConn, ctx context.Context, path, name string, end func()) ([]byte, string) {
	stream, err := conn.NewStream(ctx, streams, path)
	if err != nil {
		return nil, code(err)
	}
	if err := stream.SendMsg(message(name)); err != nil {
		return nil, code(err)
	}
	stream.CloseSend()
	var answer, more []byte
	if err := stream.RecvMsg(&answer); err != nil {
		return nil, code(err)
	}
	end()
	return answer, code(stream.RecvMsg(&more))
}

// together makes so many calls at once, and returns how many pass.
func together(conn *grpc.ClientConn, calls int, sent func()) int64 {
	var passed atomic.Int64
	var group sync.WaitGroup
	for range calls {
		group.Add(1)
		go func() {
			defer group.Done()
			if verdict(conn, "many") == "OK" {
				passed.Add(1)
			}
		}()
	}
	sent()
	group.Wait()
	return passed.Load()
}

func checks(conn *grpc.ClientConn) {
	fmt.Println("decide", verdict(conn, "two"), verdict(conn, "two"), verdict(conn, "two"))
	var health []byte
	err := conn.Invoke(context.Background(), check, message("health"), &health)
	fmt.Println("health", code(err), health[1])
	err = conn.Invoke(context.Background(), check, message("nobody"), &health)
	fmt.Println("nobody", code(err))
	err = conn.Invoke(context.Background(), unknown, message("health"), &health)
	fmt.Println("unknown", code(err))
	ctx, cancel := context.WithCancel(context.Background())
	answer, end := first(conn, ctx, watch, "health", cancel)
	fmt.Println("cancel", answer[1], end)
	ctx, cancel = context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	answer, end = first(conn, ctx, watch, "health", func() {})
	fmt.Println("deadline", answer[1], end)
	answer, _ = first(conn, context.Background(), reflect, "list", func() {})
	fmt.Println("reflection", strings.Contains(string(answer), "envoy.service.ratelimit.v3.RateLimitService"))
	fmt.Println("large", verdict(conn, "large"))
	fmt.Println("together", together(conn, 1000, func() {}))
	fmt.Println("again", verdict(conn, "many"))
}

func main() {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytes{})),
	}
	conn, err := grpc.NewClient(os.Args[1], options...)
	if err != nil {
		log.Fatal(err)
	}
	switch os.Args[2] {
	case "checks":
		checks(conn)
	case "drain":
		fmt.Println("first", verdict(conn, "many"))
		fmt.Scanln()
		fmt.Println("answered", together(conn, 50, func() { fmt.Println("sent") }))
	case "age":
		failed, end := 0, time.Now().Add(1500*time.Millisecond)
		for time.Now().Before(end) {
			if verdict(conn, "many") != "OK" {
				failed++
			}
		}
		fmt.Println("failed", failed)
	}
}
