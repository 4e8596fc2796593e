// Results of edged in C++: prints each with the mean brightness of its very frame, read in shared memory.
//   g++ -std=c++17 -O2 -I.. client.cpp -lzmq -o client        (libzmq3-dev, cppzmq-dev, libmsgpack-cxx-dev)
//   ./client ipc:///run/edged/results.ipc 10
#include <cstdlib>
#include <iostream>
#include <map>
#include <msgpack.hpp>
#include <numeric>
#include <string>
#include <vector>
#include <zmq.hpp>

#include "edged_ring.h"

using Map = std::map<std::string, msgpack::object>;

static double brightness(const Map &frame) {  // -1: the frame is gone
    const edged_ring *ring = edged_ring_open(frame.at("name").as<std::string>().c_str());
    const auto slot = frame.at("slot").as<unsigned>();
    const auto seq = frame.at("seq").as<uint64_t>();
    double mean = -1;
    if (ring && edged_ring_intact(ring, slot, seq)) {
        const uint8_t *pixels = edged_ring_pixels(ring, slot);
        const double sum = std::accumulate(pixels, pixels + edged_ring_bytes(ring), uint64_t{0});
        if (edged_ring_intact(ring, slot, seq)) mean = sum / edged_ring_bytes(ring);
    }
    if (ring) edged_ring_close(ring);
    return mean;
}

int main(int argc, char **argv) {
    zmq::context_t context;
    zmq::socket_t socket(context, zmq::socket_type::sub);
    socket.set(zmq::sockopt::subscribe, "result/");
    socket.connect(argc > 1 ? argv[1] : "ipc:///run/edged/results.ipc");
    for (int left = argc > 2 ? std::atoi(argv[2]) : -1; left != 0; --left) {
        zmq::message_t topic, payload;
        if (!socket.recv(topic) || !socket.recv(payload)) return 1;
        const auto unpacked = msgpack::unpack(payload.data<char>(), payload.size());
        const auto result = unpacked->as<Map>();
        std::cout << result.at("camera").as<std::string>() << " " << result.at("frame").as<uint64_t>() << " "
                  << result.at("variant").as<std::string>() << " " << result.at("age_ms").as<double>() << " ms, mean "
                  << brightness(result.at("ring").as<Map>());
        if (const auto found = result.find("detections"); found != result.end())
            for (const auto &object : found->second.as<std::vector<Map>>())
                std::cout << " " << object.at("label").as<std::string>() << " " << object.at("score").as<double>();
        std::cout << std::endl;
    }
}
