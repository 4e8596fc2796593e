// Results of edged in Go: prints each with the mean brightness of its very frame, read in shared memory.
//
//	go build -o client client.go && ./client ipc:///run/edged/results.ipc 10      (libzmq3-dev)
package main

/*
#cgo CFLAGS: -I..
#cgo LDFLAGS: -lzmq
#include <stdlib.h>
#include <zmq.h>
#include "edged_ring.h"
*/
import "C"

import (
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"github.com/vmihailenco/msgpack/v5"
)

type Result struct {
	Camera     string  `msgpack:"camera"`
	Frame      uint64  `msgpack:"frame"`
	Variant    string  `msgpack:"variant"`
	AgeMs      float64 `msgpack:"age_ms"`
	Detections []struct {
		Label string  `msgpack:"label"`
		Score float64 `msgpack:"score"`
	} `msgpack:"detections"`
	Ring struct {
		Name string `msgpack:"name"`
		Slot uint   `msgpack:"slot"`
		Seq  uint64 `msgpack:"seq"`
	} `msgpack:"ring"`
}

func brightness(r Result) float64 { // -1: the frame is gone
	name := C.CString(r.Ring.Name)
	defer C.free(unsafe.Pointer(name))
	ring, slot, seq := C.edged_ring_open(name), C.uint(r.Ring.Slot), C.uint64_t(r.Ring.Seq)
	if ring == nil {
		return -1
	}
	defer C.edged_ring_close(ring)
	if C.edged_ring_intact(ring, slot, seq) == 0 {
		return -1
	}
	sum := 0
	pixels := unsafe.Slice((*byte)(C.edged_ring_pixels(ring, slot)), int(C.edged_ring_bytes(ring)))
	for _, value := range pixels {
		sum += int(value)
	}
	if C.edged_ring_intact(ring, slot, seq) == 0 {
		return -1
	}
	return float64(sum) / float64(len(pixels))
}

func receive(socket unsafe.Pointer) []byte {
	var message C.zmq_msg_t
	C.zmq_msg_init(&message)
	defer C.zmq_msg_close(&message)
	if C.zmq_msg_recv(&message, socket, 0) < 0 {
		panic("the socket is closed")
	}
	return C.GoBytes(C.zmq_msg_data(&message), C.int(C.zmq_msg_size(&message)))
}

func main() {
	endpoint, left := "ipc:///run/edged/results.ipc", -1
	if len(os.Args) > 1 {
		endpoint = os.Args[1]
	}
	if len(os.Args) > 2 {
		left, _ = strconv.Atoi(os.Args[2])
	}
	socket := C.zmq_socket(C.zmq_ctx_new(), C.ZMQ_SUB)
	topic := C.CString("result/")
	C.zmq_setsockopt(socket, C.ZMQ_SUBSCRIBE, unsafe.Pointer(topic), 7)
	if C.zmq_connect(socket, C.CString(endpoint)) != 0 {
		panic("cannot connect to " + endpoint)
	}
	for ; left != 0; left-- {
		receive(socket) // the topic
		var r Result
		if err := msgpack.Unmarshal(receive(socket), &r); err != nil {
			panic(err)
		}
		fmt.Printf("%s %d %s %.1f ms, mean %.6g", r.Camera, r.Frame, r.Variant, r.AgeMs, brightness(r))
		for _, object := range r.Detections {
			fmt.Printf(" %s %.2f", object.Label, object.Score)
		}
		fmt.Println()
	}
}
