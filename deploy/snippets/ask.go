// Command ask is a Go service that calls tollgate directly, without Envoy. It waits at most for a
// deadline, fails open, and charges work whose cost is known only afterwards. A template to copy,
// not a library.
//
// In your own module (go mod init; go mod tidy):
//
//	tollgate --policies deploy/snippets/policy.yaml
//	go run ask.go 127.0.0.1:8081 acme
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rls "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// Maximum time to wait for a decision. Longer than the store deadline of tollgate
	// (`store.deadline`), and short enough that users do not notice.
	deadline = 50 * time.Millisecond

	// Maximum time to settle. No user waits for it.
	settleDeadline = time.Second

	domain = "snippets"
)

// Decision is the decision of a request.
type Decision struct {
	// True if the request may proceed.
	Passes bool
	// The time until a retry can pass; 0: never, or now.
	RetryAfter time.Duration
	// False if no answer arrived in time, so that the request passes.
	Decided bool
}

func (d Decision) String() string {
	switch {
	case d.Passes && d.Decided:
		return "passes"
	case d.Passes:
		return "passes, undecided"
	case d.RetryAfter > 0:
		return fmt.Sprintf("denied, retry after %.3f s", d.RetryAfter.Seconds())
	default:
		return "denied"
	}
}

// Entries are the entries of a descriptor: key, value, key, value.
type Entries []string

// Limiter is a client of tollgate with one connection per address. Use one per process.
type Limiter struct {
	service rls.RateLimitServiceClient
}

// NewLimiter connects at the first request, and reconnects after a lost connection. With
// dns:///name:8081 it balances over all replicas, round robin.
func NewLimiter(address string) (*Limiter, error) {
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err != nil {
		return nil, err
	}
	return &Limiter{service: rls.NewRateLimitServiceClient(connection)}, nil
}

// Ask decides a request at a cost of one hit.
func (l *Limiter) Ask(ctx context.Context, entries Entries) Decision {
	return l.decide(ctx, entries, 1, deadline)
}

// Peek tests if a hit is left; charges nothing.
func (l *Limiter) Peek(ctx context.Context, entries Entries) Decision {
	return l.decide(ctx, entries, 0, deadline)
}

// Settle charges a cost that is already spent, so there is no decision. Never retried, because an
// interrupted call may have been charged.
func (l *Limiter) Settle(entries Entries, cost uint64) {
	// 0 hits would be a peek. Not the context of the request: a cancelled request is charged, too.
	if cost > 0 && !l.decide(context.Background(), entries, cost, settleDeadline).Decided {
		log.Printf("a cost of %d may not have been charged to %v", cost, entries)
	}
}

func (l *Limiter) decide(ctx context.Context, entries Entries, hits uint64, within time.Duration) Decision {
	// The deadline covers the time to connect. gRPC sends it to tollgate, which answers before it.
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	descriptor := &common.RateLimitDescriptor{HitsAddend: wrapperspb.UInt64(hits)}
	for i := 0; i+1 < len(entries); i += 2 {
		entry := &common.RateLimitDescriptor_Entry{Key: entries[i], Value: entries[i+1]}
		descriptor.Entries = append(descriptor.Entries, entry)
	}
	response, err := l.service.ShouldRateLimit(ctx, &rls.RateLimitRequest{
		Domain:      domain,
		Descriptors: []*common.RateLimitDescriptor{descriptor},
	})
	if err != nil {
		// Fails open: limits protect the service and must not stop it.
		log.Printf("passes without a decision: %v", err)
		return Decision{Passes: true}
	}
	if response.GetOverallCode() != rls.RateLimitResponse_OVER_LIMIT {
		return Decision{Passes: true, Decided: true}
	}
	return Decision{RetryAfter: retryAfter(response), Decided: true}
}

// retryAfter is the time until all descriptors over their limit would pass: in milliseconds from
// the metadata, or in whole seconds if tollgate sends no metadata. 0: never.
func retryAfter(response *rls.RateLimitResponse) time.Duration {
	details := response.GetDynamicMetadata().GetFields()["descriptors"].GetListValue().GetValues()
	var latest time.Duration
	for i, status := range response.GetStatuses() {
		if status.GetCode() != rls.RateLimitResponse_OVER_LIMIT {
			continue
		}
		wait := status.GetDurationUntilReset().AsDuration()
		if i < len(details) {
			millis, known := details[i].GetStructValue().GetFields()["retry_after_ms"]
			if !known {
				return 0
			}
			wait = time.Duration(millis.GetNumberValue()) * time.Millisecond
		}
		latest = max(latest, wait)
	}
	return latest
}

// serve serves a request of a tenant, and work whose cost is known only afterwards.
func serve(ctx context.Context, limiter *Limiter, tenant string) {
	fmt.Println("request:", limiter.Ask(ctx, Entries{"tenant", tenant}))
	budget := Entries{"tenant", tenant, "budget", "tokens"}
	left := limiter.Peek(ctx, budget)
	if !left.Passes {
		fmt.Println("work:", left)
		return
	}
	cost := work()
	limiter.Settle(budget, cost)
	fmt.Printf("work: %s, cost %d\n", left, cost)
}

// work is a placeholder for the limited work; it returns its cost.
func work() uint64 {
	return 80
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: ask ADDRESS TENANT")
	}
	limiter, err := NewLimiter(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	serve(context.Background(), limiter, os.Args[2])
}
